"""The suite for sleep handlers: ours passes it, and broken ones are told what is wrong."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from llm_router_mw.protocols import InstanceHandle
from llm_router_mw.testing import check_sleep_handler, sleep_conformance
from llm_router_mw.types import Snapshot, Step
from tests.support.stores import running

pytestmark = pytest.mark.asyncio


async def test_ours_conforms(tmp_path: Path) -> None:
    async with running(tmp_path, kv_cache_dir=str(tmp_path / "disk")) as store:
        await check_sleep_handler(store)
        assert store.snapshots()


class Idle:
    """A handler that does nothing."""

    name = "idle"

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        pass

    async def resume(self, handle: InstanceHandle) -> None:
        pass


async def test_one_that_does_nothing_conforms() -> None:
    await check_sleep_handler(Idle())


class Keeper(Idle):
    """A handler that saves all and offers it to everybody, unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshots: list[Snapshot] = []

    def path(self, handle: InstanceHandle, sequence: int) -> str:
        return str(self.folder / f"{len(self.snapshots)}.kv")

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        if handle.identity:
            await self.save_all(handle)

    async def save_all(self, handle: InstanceHandle) -> None:
        for info in await handle.sequences():
            path = self.path(handle, info.sequence)
            self.snapshots.append(await handle.save(info.sequence, path))

    async def resume(self, handle: InstanceHandle) -> None:
        handle.offer([each for each in self.snapshots if each.identity == handle.identity])


async def test_one_that_keeps_all_conforms(tmp_path: Path) -> None:
    await check_sleep_handler(Keeper(tmp_path))


class KeepsWhatNobodyShould(Keeper):
    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        await self.save_all(handle)


class OffersToEverybody(Keeper):
    async def resume(self, handle: InstanceHandle) -> None:
        handle.offer(self.snapshots)


class OffersWhatIsGone(Keeper):
    async def resume(self, handle: InstanceHandle) -> None:
        for each in self.snapshots:
            with suppress(FileNotFoundError):
                os.unlink(each.path)
        await super().resume(handle)


class OnePathForAll(Keeper):
    def path(self, handle: InstanceHandle, sequence: int) -> str:
        return str(self.folder / "all.kv")


class NoFolder(Keeper):
    def path(self, handle: InstanceHandle, sequence: int) -> str:
        return str(self.folder / "missing" / "all.kv")


class AsksTooLate(Keeper):
    async def resume(self, handle: InstanceHandle) -> None:
        await handle.sequences()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (KeepsWhatNobodyShould, "the identity is empty"),
        (OffersToEverybody, "what another model has computed"),
        (OffersWhatIsGone, "a file that is not there"),
        (OnePathForAll, "two conversations in"),
        (NoFolder, "where that cannot be"),
        (AsksTooLate, "does not go to sleep"),
    ],
)
async def test_a_broken_one_is_told_what_is_wrong(
    broken: type[Keeper], told: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=told):
        await check_sleep_handler(broken(tmp_path))


async def test_one_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs(Idle):
        async def resume(self, handle: InstanceHandle) -> None:
            await anyio.sleep_forever()

    monkeypatch.setattr(sleep_conformance, "_SECONDS", 0.01)
    with pytest.raises(AssertionError, match="does not return within"):
        await check_sleep_handler(Hangs())


async def test_something_else_is_told_what_it_needs() -> None:
    with pytest.raises(AssertionError, match="it needs a name"):
        await check_sleep_handler(object())  # type: ignore[arg-type]
