"""What an event says of memory, as words for the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_router_mw.units import MIB


def in_words(data: Mapping[str, Any]) -> str:
    """Return the arithmetic of an event's *data*, device by device; empty where it has none."""
    parts = [
        f"{pool}: needs {_mib(sums['needed_bytes'])} MiB, leaves {_mib(sums['left_bytes'])} MiB "
        f"beside {_mib(sums['others_bytes'])} MiB of others and a margin of "
        f"{_mib(sums['margin_bytes'])} MiB"
        for pool, sums in data.get("memory", {}).items()
    ]
    parts += [f"{pool}: frees {_mib(size)} MiB" for pool, size in data.get("freed", {}).items()]
    return f" ({'; '.join(parts)})" if parts else ""


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"
