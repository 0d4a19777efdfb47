"""What processes hold of the host's memory, as Linux tells it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

_KIB = 1024


class ProcessMemory(Struct, frozen=True, kw_only=True):
    """What one process holds that the kernel cannot simply drop."""

    anonymous_bytes: int
    shared_bytes: int = 0
    """Of shared memory; drivers keep memory here that they have pinned for a GPU."""
    locked_bytes: int = 0
    """Of files, locked into memory (``use_mlock``)."""

    @property
    def private_bytes(self) -> int:
        """All of it. Clean pages of mapped files are not in it: the system counts them as free."""
        return self.anonymous_bytes + self.shared_bytes + self.locked_bytes


def process_memory(pid: int, root: Path = Path("/")) -> ProcessMemory | None:
    """Return what *pid* holds; None if it is gone, or if the system does not tell.

    Reads a page of text, however much the process has: cheap enough for polling.
    """
    folder = root / "proc" / str(pid)
    try:
        status = sizes((folder / "status").read_text())
        if "RssAnon" not in status:
            return _from_counts((folder / "statm").read_text())
    except OSError:
        return None
    return ProcessMemory(
        anonymous_bytes=status["RssAnon"],
        shared_bytes=status.get("RssShmem", 0),
        # Locked are anonymous pages too; those of files are what is not counted yet.
        locked_bytes=min(status.get("VmLck", 0), status.get("RssFile", 0)),
    )


def private_bytes(pids: Iterable[int], root: Path = Path("/")) -> int | None:
    """Return what *pids* hold together; None where the system tells nothing of processes."""
    if not (root / "proc" / "self").exists():
        return None
    found = (process_memory(pid, root) for pid in pids)
    return sum(memory.private_bytes for memory in found if memory is not None)


def proportional_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """Return all of *pid*'s resident memory, what it shares divided by the sharers (PSS).

    Mapped files are in it. The kernel walks all of the process's pages for it, which takes part of
    a second for a large one: for single measurements, not for polling. None if it cannot be read.
    """
    try:
        return sizes((root / "proc" / str(pid) / "smaps_rollup").read_text()).get("Pss")
    except OSError:
        return None


def sizes(text: str) -> dict[str, int]:
    """Return the lines ``Name:  12 kB`` of one of the kernel's files as name → bytes."""
    return dict(_sizes(text))


def _sizes(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if unit == "kB" and number.isdecimal():
            yield name, int(number) * _KIB


def _from_counts(statm: str) -> ProcessMemory | None:
    """Read what systems tell that do not part resident memory by kind: pages, of which shared."""
    counts = statm.split()
    if len(counts) < 3:
        return None
    return ProcessMemory(
        anonymous_bytes=max(0, int(counts[1]) - int(counts[2])) * os.sysconf("SC_PAGE_SIZE")
    )
