"""Limits of memory that a container, a service or a job puts on its processes (Linux cgroups)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

_UNIFIED = "cgroup2"


class MemoryLimit(Struct, frozen=True, kw_only=True):
    """What one level of the hierarchy allows."""

    total_bytes: int
    free_bytes: int
    """What may still be taken: pages of files that can be dropped count as free."""


class _Mount(Struct, frozen=True, kw_only=True):
    kind: str
    """``cgroup2``, or ``cgroup`` for the memory controller of version 1."""
    shown: str
    """Part of the hierarchy that is seen at the folder."""
    folder: str


def memory_limits(root: Path = Path("/")) -> list[MemoryLimit]:
    """Return the limits of this process's own group and of all groups above it that can be seen.

    Both versions of cgroups are read; the files are looked for under *root*.
    """
    try:
        mounts = list(_mounts((root / "proc/self/mountinfo").read_text()))
        groups = _groups((root / "proc/self/cgroup").read_text())
    except OSError:
        return []
    found: list[MemoryLimit] = []
    for mount in mounts:
        if mount.kind in groups:
            for folder in _folders(mount, groups[mount.kind], root):
                found += _limits(folder, mount.kind)
    return found


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        place, dash, system = line.partition(" - ")
        fields, (kind, _, options) = place.split(), (system.split() + [""] * 3)[:3]
        if dash and (kind == _UNIFIED or (kind == "cgroup" and "memory" in options.split(","))):
            yield _Mount(kind=kind, shown=fields[3], folder=fields[4])


def _groups(text: str) -> dict[str, str]:
    """Return the path of this process's group in each kind of hierarchy."""
    groups = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            groups[_UNIFIED] = path
        elif "memory" in controllers.split(","):
            groups["cgroup"] = path
    return groups


def _folders(mount: _Mount, group: str, root: Path) -> Iterator[Path]:
    """Yield the folder of *group* and those above it, as far as they can be seen here."""
    top = PurePosixPath(mount.folder).relative_to("/")
    path = PurePosixPath(group)
    # A container often sees its own group as the top, and the path as it is outside.
    inside = path.is_relative_to(mount.shown) and ".." not in path.parts
    leaf = top / path.relative_to(mount.shown) if inside else top
    for folder in (leaf, *leaf.parents):
        if folder.is_relative_to(top):
            yield root / folder


def _limits(folder: Path, kind: str) -> Iterator[MemoryLimit]:
    if kind == _UNIFIED:
        # Beyond "high" a group is throttled until nothing moves: as good as a limit.
        limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
        used = _number(folder / "memory.current")
    else:
        limits = [_number(folder / "memory.limit_in_bytes")]
        used = _number(folder / "memory.usage_in_bytes")
    known = [limit for limit in limits if limit is not None]
    if known and used is not None:
        held = max(0, used - _droppable(folder / "memory.stat"))
        yield MemoryLimit(total_bytes=min(known), free_bytes=max(0, min(known) - held))


def _number(file: Path) -> int | None:
    """Return the number in *file*; None if it is missing or says ``max``."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _droppable(file: Path) -> int:
    """Return the bytes of clean pages of files, as the kernel counts them in MemAvailable.

    Active ones too: a mapped model that is in use consists of them, and is charged to us as part
    of the model; counted as used they would be charged twice.
    """
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return 0
    counts = {line[0]: int(line[1]) for line in lines if len(line) == 2}
    # Version 1 tells those of the group alone, and under this prefix those with all groups below.
    prefix = "total_" if "total_inactive_file" in counts else ""
    dirty = ("file_dirty", "file_writeback") if not prefix else ("dirty", "writeback")
    clean = sum(counts.get(prefix + name, 0) for name in ("active_file", "inactive_file"))
    return max(0, clean - sum(counts.get(prefix + name, 0) for name in dirty))
