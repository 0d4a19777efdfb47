"""The last look before a load: whether the room is still there, whatever others do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import anyio
import pytest

from llm_router_mw.memory.machine_lock import Hold, MachineLock
from llm_router_mw.router.gate import Gate
from llm_router_mw.types import Placement, Price
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

PRICE = Price(placement=Placement(), bytes_by_pool={"gpu": 40, "host": 0})


class Stage:
    """A gate, what it asks, and another router on the machine."""

    def __init__(self, folder: Path) -> None:
        self.room = {"gpu": 0}
        self.did: list[str] = []
        self.other = MachineLock(folder)
        self.gate = Gate(MachineLock(folder), self._look, self._room, self._settled)

    async def _look(self) -> None:
        self.did.append("look")

    def _room(self, pool: str) -> int:
        return self.room[pool]

    async def _settled(self) -> None:
        self.did.append("settled")

    async def admitted(self, held: int = 0) -> bool:
        hold = await self.gate.admit(PRICE, {"gpu": held})
        if hold is not None:
            hold.release()
        return hold is not None


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "runtime")


@pytest.fixture
def others(stage: Stage) -> Iterator[Hold]:
    """What another router has locked, and may reserve."""
    hold = stage.other.try_hold(["gpu"])
    assert hold is not None
    yield hold
    hold.release()


async def test_what_has_room_is_let_through(stage: Stage) -> None:
    # Its own charge is taken off already.
    assert await stage.admitted()


async def test_what_is_shed_is_free_before_the_look_and_after_it(stage: Stage) -> None:
    await stage.admitted()
    assert stage.did == ["settled", "look", "settled"]


async def test_what_has_no_room_any_more_is_held_back(stage: Stage) -> None:
    stage.room["gpu"] = -1
    assert not await stage.admitted()
    assert stage.other.try_hold(["gpu"]) is not None


async def test_others_see_what_is_on_its_way_until_it_is_there(stage: Stage) -> None:
    hold = await stage.gate.admit(PRICE)
    assert hold is not None
    assert stage.other.pending() == {"gpu": 40}
    hold.release()
    assert stage.other.pending() == {}


async def test_of_one_that_sleeps_only_what_it_takes_more_is_on_its_way(stage: Stage) -> None:
    hold = await stage.gate.admit(PRICE, {"gpu": 15, "host": 99})
    assert hold is not None
    assert stage.other.pending() == {"gpu": 25}
    hold.release()


async def test_what_others_reserve_is_taken(stage: Stage, others: Hold) -> None:
    others.reserve({"gpu": 10})
    others.unlock()
    stage.room["gpu"] = 9
    assert not await stage.admitted()
    stage.room["gpu"] = 10
    assert await stage.admitted()


async def test_it_waits_while_another_router_looks(
    stage: Stage, others: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    try_hold = MachineLock.try_hold

    def counted(self: MachineLock, pools: Iterable[str]) -> Hold | None:
        nonlocal tries
        tries += 1
        return try_hold(self, pools)

    monkeypatch.setattr(MachineLock, "try_hold", counted)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stage.admitted)
        await until(lambda: tries >= 2, 10)
        assert stage.did == []
        others.release()
    assert stage.did == ["settled", "look", "settled"]


async def test_one_that_looks_for_ever_holds_it_back(
    stage: Stage, others: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_router_mw.router.gate._PATIENCE_SECONDS", 0.1)
    assert not await stage.admitted()
    assert stage.did == []


async def test_a_look_that_fails_locks_nobody_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise OSError("no probe answers")

    monkeypatch.setattr(stage.gate, "_look", fail)
    with pytest.raises(OSError, match="no probe answers"):
        await stage.admitted()
    assert stage.other.try_hold(["gpu"]) is not None
