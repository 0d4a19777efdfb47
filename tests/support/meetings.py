"""Web processes that meet real hosts, and what can be seen of those."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_router_mw.config import parse_config
from llm_router_mw.errors import ConfigError
from llm_router_mw.shared.address import Address, address_of
from llm_router_mw.shared.card import cards
from llm_router_mw.shared.meeting import Meeting, meet
from llm_router_mw.shared.plan import Plan, plan_for
from tests.support.waiting import until

BOUND = 40.0
"""Seconds; what starts a process takes about one."""
SLOW = """
import os, time
while not os.path.exists({go!r}):
    time.sleep(0.02)
"""
"""A plugin that takes until there is a file."""


@contextmanager
def place_for_hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have a runtime directory that is short enough for sockets; kill what is left there."""
    folder = Path(tempfile.mkdtemp(prefix="llm-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    with suppress(ConfigError):  # a test has spoiled it
        for card in cards():
            assert card.pid != os.getpid()
            with suppress(ProcessLookupError):
                os.kill(card.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)  # a host may be about to write its last line


def plan_of(*plugins: str, **options: Any) -> Plan:
    """Return the plan of a small router in the working directory."""
    return plan_for(parse_config(spare_worker=False, **options), plugins)


def address() -> Address:
    """Return the address of those who share the working directory."""
    return address_of("", os.getcwd())


@asynccontextmanager
async def met(plan: Plan) -> AsyncIterator[Meeting]:
    """Be a web process that has met its host."""
    with anyio.fail_after(BOUND):
        meeting = await meet(plan)
        async with meeting.stream:
            yield meeting


async def meet_only(plan: Plan) -> int | None:
    """Meet a host and leave it again; return its number."""
    async with met(plan) as meeting:
        return meeting.host_pid


def pid_of(meeting: Meeting) -> int:
    """Return the number of the host's process."""
    assert meeting.host_pid is not None
    return meeting.host_pid


async def hung_up(meeting: Meeting) -> None:
    """Return when the host has closed the connection."""
    with suppress(anyio.EndOfStream):
        while True:
            await meeting.stream.receive()


async def ended(pid: int) -> None:
    """Return when the host with that number is gone."""
    await until(lambda: pid not in [card.pid for card in cards()], BOUND)


def about(pid: int, what: str) -> str:
    """Return what the kernel says of a process, the parts on lines of their own."""
    return Path(f"/proc/{pid}/{what}").read_text().replace("\0", "\n")


def opened(pid: int) -> dict[int, str]:
    """Return what a process has open, by descriptor."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(entry.name): os.readlink(entry) for entry in folder.iterdir()}
