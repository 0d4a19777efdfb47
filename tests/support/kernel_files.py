"""Trees of files as the Linux kernel shows them, for probes that are given another root."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MIB = 1024 * 1024
GIB = 1024 * MIB

UNLIMITED_V1 = "9223372036854771712"
MOUNT_V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
MOUNT_V1 = "36 31 0:33 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
OTHER_MOUNTS = (
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
)


def write(root: Path, *files: Mapping[str, str | int]) -> Path:
    """Write *files* (path → content) under *root* and return it."""
    for name, content in (item for group in files for item in group.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n" if isinstance(content, int) else content)
    return root


def meminfo(total: int, available: int) -> dict[str, str]:
    """Return the file that tells of bytes in all and available."""
    return {
        "proc/meminfo": f"MemTotal:       {total // 1024} kB\nMemFree:  17 kB\n"
        f"MemAvailable:   {available // 1024} kB\nHugePages_Total:       0\n"
    }


def process(pid: int, **sizes: int) -> dict[str, str]:
    """Return the status file of *pid* with the given fields in bytes."""
    lines = [f"{name}:\t{size // 1024:8} kB\n" for name, size in sizes.items()]
    return {f"proc/{pid}/status": f"Name:\tpython\nPid:\t{pid}\n{''.join(lines)}Threads:\t4\n"}


def cgroup_v2(group: str = "/", mounts: str = MOUNT_V2) -> dict[str, str]:
    """Return what tells a process that it is in *group* of the unified hierarchy."""
    return {"proc/self/mountinfo": OTHER_MOUNTS + mounts, "proc/self/cgroup": f"0::{group}\n"}


def cgroup_v1(group: str, mounts: str = MOUNT_V1) -> dict[str, str]:
    """Return what tells a process that it is in *group* of the memory controller."""
    return {
        "proc/self/mountinfo": OTHER_MOUNTS + mounts,
        "proc/self/cgroup": f"9:name=systemd:/\n5:memory:{group}\n4:cpu,cpuacct:/\n0::/\n",
    }
