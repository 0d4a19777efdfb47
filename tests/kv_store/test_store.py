"""The store in memory: what is saved, what is offered, and what is not."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import anyio
import pytest

from llm_router_mw.config import parse_config
from llm_router_mw.errors import SnapshotError, WorkerDiedError
from llm_router_mw.kv_store import KVStore
from llm_router_mw.protocols import MemoryHolder, SnapshotStore
from llm_router_mw.snapshot_file import part_path
from llm_router_mw.types import HOST
from llm_router_mw.wire import SnapshotBad, SnapshotKept, SnapshotUsed
from tests.support.fake_handle import MIB, FakeHandle, no_room, sequence, write
from tests.support.stores import Account, Clock, all_files, in_memory, kept, running, settled, slept
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


async def test_a_conversation_survives_sleep(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        assert isinstance(store, SnapshotStore)
        assert isinstance(store, MemoryHolder)
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await store.resume(handle)
        assert handle.offered == {}
        await slept(store, handle)
        await store.resume(handle)
        [offered] = handle.offered.values()
        assert (offered.n_tokens, offered.identity) == (128, handle.identity)
        assert in_memory(tmp_path) == [Path(offered.path)]


async def test_it_survives_the_end_of_the_worker(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
        fresh = FakeHandle()
        await store.resume(fresh)
        assert [each.n_tokens for each in fresh.offered.values()] == [128]


async def saved(store: SnapshotStore, handle: FakeHandle) -> None:
    """Load *handle*, and end it politely."""
    await store.resume(handle)
    await store.sleep(handle, "stop")
    store.left(handle)


async def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
        [path] = in_memory(tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_nothing_is_left_in_memory_when_the_router_has_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
    assert all_files(tmp_path) == []


async def test_only_the_model_itself_is_offered_its_conversations(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
        other = FakeHandle(identity="/models/b.gguf#2")
        await store.resume(other)
        assert other.offered == {}


async def test_a_model_that_keeps_nothing_is_not_even_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle(identity="", held=[sequence(0, 1, 2)])
        await saved(store, handle)
        assert (handle.saved, handle.spares, kept(store)) == ([], {}, [])


async def test_one_whose_files_have_changed_is_offered_nothing_any_more(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        await store.resume(handle)
        assert handle.offered
        handle.identity = ""
        await store.resume(handle)
        assert handle.offered == {}


async def test_what_is_kept_already_is_not_saved_again(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2, 3)])
        await slept(store, handle)
        handle.held = [sequence(0, 1, 2, ago=3.0)]
        clock.now += 10
        await slept(store, handle)
        assert (len(handle.saved), kept(store)) == (1, [("ram", 192)])
        # It was gone on with all the same.
        assert [each.used_at for each in store.snapshots()] == [clock.now - 3]


async def test_the_longer_conversation_replaces_its_beginning_and_takes_over_its_memory(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        [before] = in_memory(tmp_path)
        inode = before.stat().st_ino
        await store.resume(handle)
        handle.held = [sequence(0, 1, 2, 3)]
        await slept(store, handle)
        [after] = in_memory(tmp_path)
        assert kept(store) == [("ram", 192)]
        assert (after != before, after.stat().st_ino) == (True, inode)
        await store.resume(handle)
        assert set(handle.offered) == {str(after)}


async def test_memory_that_another_worker_may_be_reading_is_not_taken_over(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
        reader, writer = FakeHandle(), FakeHandle(held=[sequence(0, 1, 2, 3)])
        await store.resume(reader)
        [path] = in_memory(tmp_path)
        with path.open("rb") as mapped:
            before = mapped.read()
            await slept(store, writer)
            mapped.seek(0)
            assert mapped.read() == before
        # The reader goes on from the longer one.
        assert [each.n_tokens for each in reader.offered.values()] == [192]


async def test_the_latest_conversations_are_saved_first_where_not_all_fit(tmp_path: Path) -> None:
    async with running(tmp_path, cache_ram=2) as store:
        held = [sequence(0, 1, ago=30.0), sequence(1, 2, 3, ago=20.0), sequence(2, 4, 5, 6)]
        await slept(store, FakeHandle(held=held))
        assert kept(store) == [("ram", 128), ("ram", 192)]


async def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock, cache_ram=2) as store:
        for number in (1, 2, 3):
            clock.now += 10
            handle = FakeHandle(held=[sequence(0, *range(10 * number, 11 * number))])
            await saved(store, handle)
        assert kept(store) == [("ram", 128), ("ram", 192)]


async def test_what_a_worker_used_counts_as_used(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        await store.resume(handle)
        clock.now += 10
        [path] = handle.offered
        store.heard(handle, SnapshotUsed(path, 128, 0.01))
        assert [each.used_at for each in store.snapshots()] == [clock.now]
        store.heard(handle, SnapshotUsed("/unknown.kv", 128, 0.01))


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    async with running(tmp_path, cache_ram=0) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await saved(store, handle)
        assert (handle.saved, list((tmp_path / "shm").iterdir())) == ([], [])
        await store.shed(HOST, 1)


async def test_without_shared_memory_models_sleep_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = KVStore(parse_config(), shared_memory=tmp_path / "missing")
    async with store.running():
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
    assert "not kept in memory" in caplog.text


# What does not pay


@pytest.mark.parametrize(("prefill", "pays"), [(1e9, False), (10.0, True), (None, True)])
async def test_what_is_computed_faster_than_it_is_restored_is_not_saved(
    tmp_path: Path, prefill: float | None, pays: bool
) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2, prefill=prefill)])
        await slept(store, handle)
        assert bool(handle.saved) is pays


async def test_while_somebody_waits_only_what_is_quickly_saved_is_saved(tmp_path: Path) -> None:
    huge = sequence(0, 1, 2, size=2**31)
    async with running(tmp_path) as store:
        handle = FakeHandle(held=[huge, sequence(1, 3, 4)], hurried=True)
        await slept(store, handle)
        assert handle.saved == [1]


async def test_what_would_take_longer_than_a_handler_may_is_not_begun(tmp_path: Path) -> None:
    huge = sequence(0, 1, 2, size=2**31)
    async with running(tmp_path, sleep_handler_timeout_seconds=2.0) as store:
        handle = FakeHandle(held=[huge, sequence(1, 3, 4)])
        await slept(store, handle)
        assert handle.saved == [1]


async def test_while_the_router_closes_nothing_is_saved_in_memory(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)], closing=True)
        await slept(store, handle, "stop")
        assert handle.saved == []


# What goes wrong


async def test_full_memory_is_said_once_and_left_alone_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as store:
        held = [sequence(0, 1, 2), sequence(1, 3, 4)]
        handle = FakeHandle(held=held, before_saving=no_room)
        await slept(store, handle)
        assert (len(handle.saved), kept(store)) == (1, [])
        assert caplog.text.count("no room") == 1
        handle.before_saving = lambda path: None
        await slept(store, handle)
        assert len(handle.saved) == 1
        clock.now += 61
        await slept(store, handle)
        assert kept(store) == [("ram", 128), ("ram", 128)]


async def test_one_that_cannot_be_saved_keeps_no_other_from_being_saved(tmp_path: Path) -> None:
    def fail(path: str) -> None:
        if len(handle.saved) == 1:
            raise SnapshotError("llama.cpp would not")

    async with running(tmp_path) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2), sequence(1, 3, 4)], before_saving=fail)
        await slept(store, handle)
        assert (handle.saved, kept(store)) == ([1, 0], [("ram", 128)])


async def test_the_death_of_the_worker_while_it_saves_leaves_nothing(tmp_path: Path) -> None:
    def die(path: str) -> None:
        part_path(path).touch()
        raise WorkerDiedError("killed")

    account = Account()
    async with running(tmp_path, account=account) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)], before_saving=die)
        with pytest.raises(WorkerDiedError):
            await slept(store, handle)
        store.left(handle)
        assert (kept(store), account.held[-1]) == ([], 0)
        assert list((tmp_path / "shm").rglob("*.part")) == []


async def test_a_save_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    account = Account()
    async with running(tmp_path, account=account) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)], gate=anyio.Event())
        with anyio.move_on_after(0.05):
            await slept(store, handle)
        assert (kept(store), account.held[-1]) == ([], 0)
        # The file comes to be all the same, and the worker tells.
        late = write(in_directory(store, "late"), sequence(0, 1, 2))
        store.heard(handle, SnapshotKept(late))
        await settled(store)
        assert all_files(tmp_path) == []


def in_directory(store: SnapshotStore, name: str) -> str:
    """Return a path in the store's directory in memory."""
    assert store._ram is not None  # type: ignore[attr-defined]
    return str(store._ram.folder.path / f"{name}.kv")  # type: ignore[attr-defined]


async def test_a_file_that_a_worker_finds_bad_is_removed_everywhere(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        handle, other = FakeHandle(held=[sequence(0, 1, 2)]), FakeHandle()
        await slept(store, handle)
        await store.resume(handle)
        await store.resume(other)
        [path] = handle.offered
        store.heard(handle, SnapshotBad(path, "it is corrupted"))
        await settled(store)
        assert (kept(store), in_memory(tmp_path), other.offered) == ([], [], {})


async def test_no_file_but_ours_is_ever_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious.kv"
    precious.touch()
    async with running(tmp_path) as store:
        store.heard(FakeHandle(), SnapshotBad(str(precious), "who knows"))
        await settled(store)
    assert precious.exists()


# Spares


async def test_a_running_worker_has_a_spare_file(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle()
        await store.resume(handle)
        [spare] = handle.spares.values()
        assert spare.limit_bytes >= 8 * MIB
        assert part_path(spare.path).stat().st_size == 0
        # It sleeps: there is nothing that could overflow.
        await slept(store, handle)
        assert (handle.spares, part_path(spare.path).exists()) == ({}, False)


async def test_what_a_worker_has_kept_by_itself_is_offered_and_followed_by_a_new_spare(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as store:
        handle, other = FakeHandle(), FakeHandle()
        await store.resume(handle)
        await store.resume(other)
        [path] = handle.spares
        store.heard(handle, SnapshotKept(write(path, sequence(0, 1, 2))))
        await settled(store)
        assert kept(store) == [("ram", 128)]
        assert set(other.offered) == {path}
        assert len(set(handle.spares) - {path}) == 1
        # It knows the file already.
        assert handle.offered == {}


async def test_what_came_of_a_spare_in_the_last_moment_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle()
        await store.resume(handle)
        [path] = handle.spares
        store.heard(handle, SnapshotKept(write(path, sequence(0, 1, 2))))
        await slept(store, handle)
        store.left(handle)
        await settled(store)
        assert kept(store) == [("ram", 128)]


async def test_a_spare_that_could_not_be_written_is_not_followed_at_once(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock) as store:
        handle = FakeHandle()
        await store.resume(handle)
        [path] = handle.spares
        store.heard(handle, SnapshotBad(path, "no room"))
        await settled(store)
        await store.sweep()
        assert handle.spares == {}
        clock.now += 61
        await store.sweep()
        assert len(handle.spares) == 1


async def test_the_spare_of_a_dead_worker_is_removed(tmp_path: Path) -> None:
    account = Account()
    async with running(tmp_path, account=account) as store:
        handle = FakeHandle()
        await store.resume(handle)
        store.left(handle)
        await settled(store)
        assert account.held[-1] == 0
        assert list((tmp_path / "shm").rglob("*.part")) == []
        store.left(handle)


async def test_a_small_budget_has_no_spares(tmp_path: Path) -> None:
    async with running(tmp_path, cache_ram=15) as store:
        handle = FakeHandle()
        await store.resume(handle)
        assert handle.spares == {}


async def test_spares_are_kept_within_the_budget(tmp_path: Path) -> None:
    async with running(tmp_path, cache_ram=20) as store:
        handle = FakeHandle()
        await store.resume(handle)
        [path] = handle.spares
        big = sequence(0, 1, 2, size=9 * MIB)
        for number in (5, 6):
            await saved(store, FakeHandle(held=[sequence(0, number, size=4 * MIB, ago=100.0)]))
        store.heard(handle, SnapshotKept(write(path, big)))
        await settled(store)
        assert sum(each.size_bytes for each in store.snapshots()) <= 20 * MIB


# Memory


async def test_what_is_held_is_charged(tmp_path: Path) -> None:
    account = Account()
    async with running(tmp_path, account=account) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2, size=MIB)]))
        await settled(store)
        [path] = in_memory(tmp_path)
        assert account.held[-1] == path.stat().st_size


async def test_it_never_grows_at_the_expense_of_models(tmp_path: Path) -> None:
    account = Account(left=MIB // 2)
    async with running(tmp_path, account=account) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2, size=MIB)])
        await saved(store, handle)
        assert (handle.saved, handle.spares) == ([], {})


async def test_it_gives_way_to_models_spares_first_and_then_the_longest_unused(
    tmp_path: Path,
) -> None:
    account = Account()
    async with running(tmp_path, account=account) as store:
        held = [sequence(0, 1, ago=20.0), sequence(1, 2, 3, ago=10.0)]
        handle = FakeHandle(held=held)
        await slept(store, handle)
        await store.resume(handle)
        await store.shed("GPU-1", 1)
        assert handle.spares
        await store.shed(HOST, 1)
        assert (handle.spares, len(kept(store))) == ({}, 2)
        await store.shed(HOST, 1)
        assert kept(store) == [("ram", 128)]
        assert [each.n_tokens for each in handle.offered.values()] == [128]
        await store.shed(HOST, 2**40)
        assert (kept(store), in_memory(tmp_path), account.held[-1]) == ([], [], 0)


async def test_there_is_no_limit_if_none_is_wanted(tmp_path: Path) -> None:
    async with running(tmp_path, cache_ram=-1) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
        assert kept(store) == [("ram", 128)]


# Time, and people


async def test_what_nobody_went_on_with_is_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock, kv_cache_ttl_seconds=100.0) as store:
        handle = FakeHandle(held=[sequence(0, 1, 2)])
        await slept(store, handle)
        await store.resume(handle)
        clock.now += 100
        await store.sweep()
        assert len(handle.offered) == 1
        clock.now += 1
        await store.sweep()
        assert (handle.offered, in_memory(tmp_path)) == ({}, [])


async def test_nothing_is_forgotten_if_that_is_wanted(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, clock, kv_cache_ttl_seconds=-1) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
        clock.now += 1e9
        await store.sweep()
        assert kept(store) == [("ram", 128)]


async def test_the_sweep_comes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_router_mw.kv_store.store._SWEEP_SECONDS", 0.01)
    clock = Clock()
    async with running(tmp_path, clock) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
        clock.now += 1e9
        await until(lambda: not store.snapshots())


async def test_all_conversations_can_be_removed_or_those_of_a_model(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        a = FakeHandle(held=[sequence(0, 1, 2)])
        b = FakeHandle(identity="/models/b.gguf#2", held=[sequence(0, 1, 2), sequence(1, 7)])
        for handle in (a, b):
            await slept(store, handle)
            await store.resume(handle)
        assert [each.model for each in store.snapshots()].count("b.gguf") == 2
        gone = await store.purge("/models/b.gguf")
        assert (gone.snapshots, gone.size_bytes > 2 * MIB // 2) == (2, True)
        assert (b.offered, len(a.offered)) == ({}, 1)
        assert (await store.purge()).snapshots == 1
        assert (kept(store), in_memory(tmp_path)) == ([], [])


async def test_what_a_worker_is_writing_during_a_purge_is_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as store:
        handle = FakeHandle()
        await store.resume(handle)
        [path] = handle.spares
        told = write(path, sequence(0, 1, 2))
        await store.purge()
        handle.offered[path] = told
        store.heard(handle, SnapshotKept(told))
        await settled(store)
        assert (kept(store), in_memory(tmp_path)) == ([], [])
        assert path not in {*handle.spares, *handle.offered}
        assert len(handle.spares) == 1


async def test_what_is_being_saved_during_a_purge_is_not_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as store, anyio.create_task_group() as tasks:
        handle = FakeHandle(held=[sequence(0, 1, 2)], gate=anyio.Event())
        tasks.start_soon(slept, store, handle)
        await until(lambda: store._ram is not None and store._ram.tier.used_bytes > 0)
        await store.purge()
        assert handle.gate is not None
        handle.gate.set()
        await until(lambda: bool(handle.saved))
        await settled(store)
        await until(lambda: in_memory(tmp_path) == [])
        assert kept(store) == []


async def test_no_text_and_no_token_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(tmp_path) as store:
        await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
    assert "somebody" not in caplog.text


async def test_a_router_can_run_again(tmp_path: Path) -> None:
    store = KVStore(parse_config(), shared_memory=tmp_path)
    for _ in range(2):
        async with store.running():
            await saved(store, FakeHandle(held=[sequence(0, 1, 2)]))
            await settled(store)
            assert kept(store) == [("ram", 128)]
