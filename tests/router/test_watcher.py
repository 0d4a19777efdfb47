"""The looks at memory: what is our own, whoever can tell, and what happens if a look fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from llm_router_mw.memory.inventory import Inventory
from llm_router_mw.router.watcher import MemoryWatcher
from llm_router_mw.types import Device, InstanceKey, LoadOptions, PoolReading

pytestmark = pytest.mark.asyncio

KEY = InstanceKey("a.gguf", LoadOptions())


class Card:
    """A probe of one card of 100 bytes, whose driver tells of processes or does not."""

    name = "card"

    def __init__(self, *, tells: bool) -> None:
        self.tells = tells
        self.others = self.ours = 0

    def inventory(self) -> Sequence[Device]:
        free = 100 - self.others - self.ours
        card = Device(
            id="card", pool="card", kind="other", name="", total_bytes=100, free_bytes=free
        )
        return [card]

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        return {"card": self.ours} if self.tells and pids else {}


class Stage:
    """A watcher of one card and one worker."""

    def __init__(self, *, tells: bool) -> None:
        self.card = Card(tells=tells)
        self.told: dict[str, int] = {}
        self.moving: set[str] = set()
        self.besides: dict[str, int] = {}
        self.readings: Mapping[str, PoolReading] = {}
        self.held: Mapping[InstanceKey, Mapping[str, int]] = {}
        self.looks = 0
        self.watcher = MemoryWatcher(
            Inventory((self.card,), 0),
            lambda: {KEY: 7},
            self._looked,
            told=lambda: self.told,
            moving=lambda: self.moving,
            besides=lambda: self.besides,
            every_seconds=0.01,
        )

    def _looked(
        self,
        readings: Mapping[str, PoolReading],
        held: Mapping[InstanceKey, Mapping[str, int]],
    ) -> None:
        self.readings, self.held = readings, held
        self.looks += 1

    async def others_bytes(self) -> int:
        await self.watcher.look()
        return self.readings["card"].others_bytes


async def test_what_a_probe_sees_of_our_processes_is_not_others() -> None:
    stage = Stage(tells=True)
    stage.card.ours, stage.card.others = 60, 10
    assert await stage.others_bytes() == 10
    assert stage.held == {KEY: {"card": 60}}


async def test_where_no_probe_sees_it_the_worker_s_own_account_counts() -> None:
    stage = Stage(tells=False)
    stage.card.ours, stage.card.others, stage.told = 60, 10, {"card": 60}
    assert await stage.others_bytes() == 10
    assert stage.held == {KEY: {}}


async def test_while_a_load_is_seen_by_nobody_others_are_as_they_were() -> None:
    stage = Stage(tells=False)
    stage.card.others = 10
    assert await stage.others_bytes() == 10
    stage.card.ours, stage.moving = 30, {"card"}
    assert await stage.others_bytes() == 10
    stage.card.ours, stage.moving, stage.told = 60, set(), {"card": 60}
    assert await stage.others_bytes() == 10


async def test_a_load_that_a_probe_sees_hides_no_growth_of_others() -> None:
    stage = Stage(tells=True)
    await stage.watcher.look()
    stage.card.ours, stage.card.others, stage.moving = 30, 20, {"card"}
    assert await stage.others_bytes() == 20


async def test_what_we_hold_besides_instances_is_not_others() -> None:
    stage = Stage(tells=True)
    stage.card.others, stage.besides = 40, {"card": 30}
    assert await stage.others_bytes() == 10


async def test_a_look_that_fails_is_told_once_and_the_last_one_stands(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tells=True)
    await stage.watcher.look()
    monkeypatch.setattr(stage.watcher._inventory, "look", _raise)
    await stage.watcher.look()
    await stage.watcher.look()
    assert stage.looks == 1
    assert [each.id for each in stage.watcher.devices] == ["card"]
    assert len([each for each in caplog.records if each.exc_info]) == 1


def _raise(*_: object) -> None:
    raise TypeError("a probe said something odd")
