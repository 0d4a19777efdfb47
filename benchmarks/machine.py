"""What the figures depend on: the machine and the versions, but no names and no paths."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import llm_router_mw

_PACKAGES = ("llama-cpp-python", "uvicorn", "anyio", "msgspec")
_GIB = 1 << 30


def describe_machine(peer: str | None) -> list[str]:
    """Return lines on hardware and software; *peer* is llama-server's version."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    lines = [
        f"{usable_cores()} cores of {_cpu_model()}, {_memory_gib()} GiB of memory, "
        f"{platform.system()} {platform.release().split('-')[0]}",
        f"llm-router-mw {llm_router_mw.__version__}, Python {platform.python_version()}",
        packages,
    ]
    return [*lines, f"llama-server {peer}"] if peer else lines


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB)
