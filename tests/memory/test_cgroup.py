"""Limits of memory are found wherever they are set, in both versions of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.memory.cgroup import MemoryLimit, memory_limits
from tests.support.kernel_files import GIB, MIB, UNLIMITED_V1, cgroup_v1, cgroup_v2, write

GROUP = "sys/fs/cgroup/app.slice/web.service"


def limit(total: int, free: int) -> MemoryLimit:
    return MemoryLimit(total_bytes=total, free_bytes=free)


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limits(tmp_path) == []


def test_a_hierarchy_that_this_process_is_not_part_of_says_nothing(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": 4 * GIB, "sys/fs/cgroup/memory.current": 1 * GIB}
    alone = cgroup_v2() | {"proc/self/cgroup": "1:cpu:/\n"}
    assert memory_limits(write(tmp_path, alone, files)) == []


def test_a_group_without_a_limit_has_none(tmp_path: Path) -> None:
    files: dict[str, str | int] = {
        f"{GROUP}/memory.max": "max\n",
        f"{GROUP}/memory.current": 5 * GIB,
    }
    assert memory_limits(write(tmp_path, cgroup_v2("/app.slice/web.service"), files)) == []


def test_the_limit_of_the_own_group(tmp_path: Path) -> None:
    files = {f"{GROUP}/memory.max": 8 * GIB, f"{GROUP}/memory.current": 3 * GIB}
    root = write(tmp_path, cgroup_v2("/app.slice/web.service"), files)
    assert memory_limits(root) == [limit(8 * GIB, 5 * GIB)]


def test_the_limits_of_all_groups_above(tmp_path: Path) -> None:
    files = {
        f"{GROUP}/memory.max": 8 * GIB,
        f"{GROUP}/memory.current": 1 * GIB,
        "sys/fs/cgroup/app.slice/memory.max": 9 * GIB,
        "sys/fs/cgroup/app.slice/memory.current": 7 * GIB,
        "sys/fs/cgroup/memory.max": 20 * GIB,  # seen in a container: its own limit
        "sys/fs/cgroup/memory.current": 10 * GIB,
    }
    root = write(tmp_path, cgroup_v2("/app.slice/web.service"), files)
    assert memory_limits(root) == [
        limit(8 * GIB, 7 * GIB),
        limit(9 * GIB, 2 * GIB),
        limit(20 * GIB, 10 * GIB),
    ]


@pytest.mark.parametrize(("most", "high"), [("max", 6 * GIB), (8 * GIB, 6 * GIB)])
def test_being_throttled_is_a_limit_too(tmp_path: Path, most: str | int, high: int) -> None:
    files: dict[str, str | int] = {
        f"{GROUP}/memory.max": most,
        f"{GROUP}/memory.high": high,
        f"{GROUP}/memory.current": 2 * GIB,
    }
    root = write(tmp_path, cgroup_v2("/app.slice/web.service"), files)
    assert memory_limits(root) == [limit(6 * GIB, 4 * GIB)]


def test_clean_pages_of_files_are_as_good_as_free(tmp_path: Path) -> None:
    stat = (
        f"anon {1 * GIB}\nfile {6 * GIB}\nactive_file {4 * GIB}\ninactive_file {2 * GIB}\n"
        f"file_dirty {100 * MIB}\nfile_writeback {50 * MIB}\nunevictable 0\n"
    )
    files: dict[str, str | int] = {
        f"{GROUP}/memory.max": 8 * GIB,
        f"{GROUP}/memory.current": 7 * GIB,
        f"{GROUP}/memory.stat": stat,
    }
    root = write(tmp_path, cgroup_v2("/app.slice/web.service"), files)
    assert memory_limits(root) == [limit(8 * GIB, 7 * GIB - 150 * MIB)]


def test_a_group_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    files = {f"{GROUP}/memory.max": 1 * GIB, f"{GROUP}/memory.current": 2 * GIB}
    root = write(tmp_path, cgroup_v2("/app.slice/web.service"), files)
    assert memory_limits(root) == [limit(1 * GIB, 0)]


@pytest.mark.parametrize("group", ["/../../other", "/docker/4fe1"])
def test_a_group_that_cannot_be_seen_from_here_leaves_those_that_can(
    tmp_path: Path, group: str
) -> None:
    files = {"sys/fs/cgroup/memory.max": 4 * GIB, "sys/fs/cgroup/memory.current": 1 * GIB}
    assert memory_limits(write(tmp_path, cgroup_v2(group), files)) == [limit(4 * GIB, 3 * GIB)]


def test_version_1_with_its_own_names(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/job"
    stat = f"cache 1\ninactive_file 1\ntotal_inactive_file {2 * GIB}\ntotal_active_file {1 * GIB}\n"
    files: dict[str, str | int] = {
        f"{folder}/memory.limit_in_bytes": 8 * GIB,
        f"{folder}/memory.usage_in_bytes": 6 * GIB,
        f"{folder}/memory.stat": stat + f"total_dirty {1 * GIB}\ntotal_writeback 0\n",
    }
    root = write(tmp_path, cgroup_v1("/job"), files)
    assert memory_limits(root) == [limit(8 * GIB, 4 * GIB)]


def test_version_1_has_a_number_for_no_limit(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    files: dict[str, str | int] = {
        f"{folder}/memory.limit_in_bytes": f"{UNLIMITED_V1}\n",
        f"{folder}/memory.usage_in_bytes": 5 * GIB,
    }
    [found] = memory_limits(write(tmp_path, cgroup_v1("/"), files))
    assert found.free_bytes > 2**60


def test_a_container_of_version_1_sees_its_own_group_as_the_top(tmp_path: Path) -> None:
    mount = "36 31 0:33 /docker/4fe1 /sys/fs/cgroup/memory ro master:9 - cgroup cgroup rw,memory\n"
    files = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 2 * GIB,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": 1 * GIB,
    }
    root = write(tmp_path, cgroup_v1("/docker/4fe1", mount), files)
    assert memory_limits(root) == [limit(2 * GIB, 1 * GIB)]


def test_both_versions_at_once(tmp_path: Path) -> None:
    """Systemd's hybrid mode: the unified hierarchy is there, without a memory controller."""
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    from_v1 = cgroup_v1("/job")
    files: dict[str, str | int] = {
        "proc/self/mountinfo": from_v1["proc/self/mountinfo"] + unified,
        "proc/self/cgroup": from_v1["proc/self/cgroup"],
        "sys/fs/cgroup/unified/cgroup.procs": "1\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": 4 * GIB,
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": 1 * GIB,
    }
    assert memory_limits(write(tmp_path, files)) == [limit(4 * GIB, 3 * GIB)]


def test_the_limits_of_this_very_machine_can_be_read() -> None:
    for found in memory_limits():
        assert 0 <= found.free_bytes <= found.total_bytes
