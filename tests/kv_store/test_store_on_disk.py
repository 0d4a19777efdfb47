"""The store with a directory: conversations outlive the router, whoever else uses it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.errors import ConfigError
from llm_router_mw.kv_store import folder as files
from llm_router_mw.kv_store.folder import Folder
from llm_router_mw.wire import SnapshotBad, SnapshotUsed
from tests.support.fake_handle import MIB, FakeHandle, no_room, sequence, write
from tests.support.stores import Account, Clock, all_files, in_memory, kept, running, settled, slept

pytestmark = pytest.mark.asyncio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def make(folder: Path, mode: int = 0o700) -> None:
    folder.mkdir()
    folder.chmod(mode)


def new(folder: Path) -> str:
    """Return a path for one more file."""
    return Folder(folder).new_path("any")


async def test_conversations_outlive_the_router(tmp_path: Path, folder: Path) -> None:
    async with running(tmp_path, kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[sequence(0, 1, 2)]))
    async with running(tmp_path, kv_cache_dir=folder) as store:
        assert kept(store) == [("disk", 128)]
        handle = FakeHandle()
        await store.resume(handle)
        [offered] = handle.offered.values()
        assert Path(offered.path).parent == folder
        assert offered.n_tokens == 128


async def test_they_are_copied_behind_everybodys_back_and_offered_from_memory(
    tmp_path: Path, folder: Path
) -> None:
    async with running(tmp_path, kv_cache_dir=folder) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        await settled(store)
        assert kept(store) == [("disk", 128), ("ram", 128)]
        await store.resume(handle)
        assert list(handle.offered) == [str(path) for path in in_memory(tmp_path)]


async def test_what_memory_has_no_room_for_any_more_is_offered_from_disk(
    tmp_path: Path, folder: Path
) -> None:
    async with running(tmp_path, kv_cache_dir=folder) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        await settled(store)
        await store.resume(handle)
        await store.shed("host", 2**40)
        assert [Path(path).parent for path in handle.offered] == [folder]


async def test_while_the_router_closes_they_go_straight_to_disk(
    tmp_path: Path, folder: Path
) -> None:
    async with running(tmp_path, kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[sequence(0, 1, 2)], closing=True), "stop")
        assert kept(store) == [("disk", 128)]


async def test_without_memory_the_disk_alone_serves(tmp_path: Path, folder: Path) -> None:
    async with running(tmp_path, kv_cache_dir=folder, cache_ram=0) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        assert kept(store) == [("disk", 128)]


async def test_a_full_memory_falls_back_to_the_disk(tmp_path: Path, folder: Path) -> None:
    def full(path: str) -> None:
        if Path(path).parent != folder:
            no_room(path)

    async with running(tmp_path, kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[sequence(0, 1, 2)], before_saving=full))
        assert kept(store) == [("disk", 128)]


async def test_no_room_beside_models_falls_back_to_the_disk(tmp_path: Path, folder: Path) -> None:
    async with running(tmp_path, account=Account(left=0), kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[sequence(0, 1, 2)]))
        assert kept(store) == [("disk", 128)]


async def test_a_full_disk_is_left_alone_for_a_while(
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    async with running(tmp_path, kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[sequence(0, 1, 2), sequence(1, 3, 4)]))
        await settled(store)
        assert kept(store) == [("ram", 128), ("ram", 128)]
    assert caplog.text.count("could not be copied") == 1
    assert all_files(tmp_path) == []


async def test_the_budget_holds_on_disk_too(tmp_path: Path, folder: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock, kv_cache_dir=folder, kv_cache_disk=2) as store:
        for number in (1, 2, 3):
            clock.now += 10
            await slept(store, FakeHandle(held=[sequence(0, number, 99)]))
            await settled(store)
        assert [tier for tier, _ in kept(store)].count("disk") == 2
        assert [tier for tier, _ in kept(store)].count("ram") == 3


async def test_what_is_too_much_at_the_start_goes(tmp_path: Path, folder: Path) -> None:
    make(folder)
    for number in (1, 2, 3):
        told = write(new(folder), sequence(0, number))
        os.utime(told.path, (number, number))
    async with running(tmp_path, kv_cache_dir=folder, kv_cache_disk=2) as store:
        assert [each.used_at for each in store.snapshots()] == [3.0, 2.0]


async def test_use_is_remembered_over_a_restart(tmp_path: Path, folder: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock, kv_cache_dir=folder, cache_ram=0) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        await store.resume(handle)
        clock.now += 500
        [path] = handle.offered
        store.heard(handle, SnapshotUsed(path, 128, 0.01))
    async with running(tmp_path, clock, kv_cache_dir=folder) as store:
        assert [each.used_at for each in store.snapshots()] == [clock.now]


async def test_what_another_router_uses_is_not_forgotten(tmp_path: Path, folder: Path) -> None:
    clock = Clock()
    options: dict[str, Any] = {"cache_ram": 0, "kv_cache_ttl_seconds": 100}
    async with running(tmp_path, clock, kv_cache_dir=folder, **options) as one:
        for info in (sequence(0, 1, 2, ago=10.0), sequence(0, 3, 4, ago=10.0)):
            await slept(one, FakeHandle(held=[info]))
        await settled(one)
        first, _second = sorted(all_files(folder))
        clock.now += 80
        os.utime(first, (clock.now - 20, clock.now - 20))
        clock.now += 50
        await one.sweep()
        assert [each.used_at for each in one.snapshots()] == [clock.now - 70]
        assert all_files(folder) == [first]


async def test_a_time_to_come_is_not_believed(tmp_path: Path, folder: Path) -> None:
    make(folder)
    told = write(new(folder), sequence(0, 1))
    os.utime(told.path, (9e9, 9e9))
    clock = Clock()
    async with running(tmp_path, clock, kv_cache_dir=folder) as store:
        assert [each.used_at for each in store.snapshots()] == [clock.now]
        clock.now += 100
        await store.sweep()
        assert [each.used_at for each in store.snapshots()] == [clock.now - 100]


async def test_corrupted_cut_and_strange_files_are_ignored(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(folder)
    good = write(new(folder), sequence(0, 1))
    write(new(folder), sequence(0, 1), identity="/models/other.gguf#9")
    cut = Path(write(new(folder), sequence(0, 2)).path)
    os.truncate(cut, 5000)
    strange = write(new(folder), sequence(0, 3))
    os.truncate(strange.path, 0)
    async with running(tmp_path, kv_cache_dir=folder) as store:
        assert kept(store) == [("disk", 64), ("disk", 64)]
        handle = FakeHandle()
        await store.resume(handle)
        assert list(handle.offered) == [good.path]
    assert caplog.text.count("is removed") == 2


async def test_what_another_router_may_be_reading_is_not_written_over(
    tmp_path: Path, folder: Path
) -> None:
    async with running(tmp_path, kv_cache_dir=folder, cache_ram=0) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        [path] = all_files(folder)
        with path.open("rb") as mapped:
            before = mapped.read()
            await store.resume(handle)
            handle.held = [sequence(0, 1, 2, 3)]
            await slept(store, handle)
            mapped.seek(0)
            assert mapped.read() == before
        assert kept(store) == [("disk", 192)]


async def test_two_routers_share_a_directory(tmp_path: Path, folder: Path) -> None:
    async with (
        running(tmp_path, kv_cache_dir=folder) as one,
        running(tmp_path, kv_cache_dir=folder) as two,
    ):
        handle = FakeHandle()
        await two.resume(handle)
        await slept(one, FakeHandle(held=[sequence(0, 1, 2)]))
        await settled(one)
        await two.sweep()
        [path] = handle.offered
        assert Path(path).parent == folder
        await one.purge()
        await two.sweep()
        assert (handle.offered, kept(two)) == ({}, [])


async def test_a_file_that_the_other_router_has_removed_is_no_trouble(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, kv_cache_dir=folder, cache_ram=0) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        await store.resume(handle)
        [path] = handle.offered
        files.remove([path])
        store.heard(handle, SnapshotBad(path, "No such file"))
        await settled(store)
        assert (kept(store), handle.offered) == ([], {})
    assert not caplog.records


async def test_what_is_removed_before_it_was_copied_is_not_copied(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[sequence(0, 1, 2)]))
        await store.purge()
    assert all_files(tmp_path) == []


async def test_what_is_read_from_disk_slower_than_computed_stays_in_memory(
    tmp_path: Path, folder: Path
) -> None:
    # A MiB takes a quarter of a millisecond from memory, and two from disk.
    fast = sequence(0, 1, 2, size=MIB, prefill=128 / 0.001)
    async with running(tmp_path, kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[fast]))
        await settled(store)
        assert kept(store) == [("ram", 128)]


async def test_a_purge_takes_what_is_on_disk(tmp_path: Path, folder: Path) -> None:
    async with running(tmp_path, kv_cache_dir=folder) as store:
        await slept(store, FakeHandle(held=[sequence(0, 1, 2)]))
        await settled(store)
        assert (await store.purge()).snapshots == 2
    assert all_files(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
async def test_a_directory_that_others_can_look_into_is_an_error_at_start(
    tmp_path: Path, folder: Path
) -> None:
    make(folder, 0o755)
    with pytest.raises(ConfigError, match=r"kv_cache_dir: .*chmod 700"):
        async with running(tmp_path, kv_cache_dir=folder):
            pass
    assert all_files(tmp_path) == []


async def test_while_the_router_closes_only_what_is_quickly_saved_is_saved(
    tmp_path: Path, folder: Path
) -> None:
    async with running(tmp_path, kv_cache_dir=folder, stop_timeout_seconds=1.0) as store:
        huge = sequence(0, 1, 2, size=300 * MIB)
        handle = FakeHandle(held=[huge, sequence(1, 3, 4)], closing=True)
        await slept(store, handle, "stop")
        assert handle.saved == [1]
