"""What a server's processes take: private memory, and time of the processor."""

from __future__ import annotations

import time
from pathlib import Path

from llm_router_mw.memory.processes import process_memory

_MIB = 1 << 20


def largest_private_mib(pid: int) -> tuple[int, float]:
    """Return which of *pid* and its descendants holds most for itself, and how many MiB."""
    held = ((each, process_memory(each)) for each in _family(pid))
    return max(
        ((each, memory.private_bytes / _MIB) for each, memory in held if memory is not None),
        key=lambda found: found[1],
    )


def cpu_seconds(pid: int) -> float:
    """Return for how long *pid* itself, without its children, has computed so far."""
    # The number of another process' clock, as clock_getcpuclockid makes it: Python lacks that.
    return time.clock_gettime((~pid << 3) | 2)


def _family(pid: int) -> list[int]:
    """Return *pid* and its descendants."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of the program, in brackets, may hold anything.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(path.parent.name)] = int(fields[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family
