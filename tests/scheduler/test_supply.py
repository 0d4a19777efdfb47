"""What the residents could give is kept up to date: it is always what a count would find."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.states import LEAVING
from llm_router_mw.scheduler.supply import Pile, Supply
from llm_router_mw.types import InstanceState
from tests.support.scheduler_mixes import MIXES
from tests.support.scheduler_script import play, random_script
from tests.support.scheduling import key

ROOM = {"slots": 0, "gpu": 0}


def of(pile: Pile) -> dict[str, int]:
    return pile.beside(ROOM, ())


def resident(ledger: Ledger, name: str, state: InstanceState, size: int) -> Instance:
    ledger.charge(key(name), {"slots": 1, "gpu": size})
    return Instance(key(name), state=state)


def test_who_is_idle_may_give_all_that_it_has() -> None:
    ledger = Ledger()
    supply = Supply(ledger)
    supply.note(resident(ledger, "a", InstanceState.LOADED, 30))
    supply.note(resident(ledger, "b", InstanceState.LOADED, 40))
    supply.catch_up()
    assert of(supply.idle) == {"slots": 2, "gpu": 70}
    assert supply.idle.beside(ROOM, {key("a")}) == {"slots": 1, "gpu": 40}
    assert [each.key for each in supply.idle.but({key("a")})] == [key("b")]


def test_one_that_changes_moves_to_another_pile() -> None:
    ledger = Ledger()
    supply = Supply(ledger)
    instance = resident(ledger, "a", InstanceState.LOADED, 30)
    supply.note(instance)
    supply.catch_up()
    instance.leases.add(1)
    supply.note(instance)
    supply.catch_up()
    assert of(supply.idle) == ROOM
    assert of(supply.busy) == {"slots": 1, "gpu": 30}
    instance.state = InstanceState.STOPPING
    supply.note(instance)
    supply.catch_up()
    assert of(supply.busy) == ROOM
    assert of(supply.leaving) == {"slots": 1, "gpu": 30}


def test_a_picture_is_made_anew_once_it_is_no_longer_true() -> None:
    ledger = Ledger()
    supply = Supply(ledger)
    instance = resident(ledger, "a", InstanceState.LOADED, 30)
    before = supply.shown(instance)
    assert supply.shown(instance) is before
    instance.used(5.0)
    supply.note(instance)
    supply.catch_up()
    assert supply.shown(instance).last_used_seconds == 5.0


class _Counted(Scheduler):
    """Counts after each decision."""

    def decide(self, event: events.Event, now: float) -> list[actions.Action]:
        decided = super().decide(event, now)
        supply = self._residents.supply
        supply.catch_up()
        idle: Counter[str] = Counter()
        busy: Counter[str] = Counter()
        for each in self._residents:
            if each.state in (InstanceState.LOADED, InstanceState.SLEEPING):
                if not each.terms.pinned:
                    (busy if each.leases else idle).update(self.ledger.charge_of(each.key))
            elif each.state in LEAVING:
                assert each.key in supply.leaving.instances
        nothing = dict.fromkeys(idle | busy, 0)
        assert supply.idle.beside(nothing, ()) == nothing | idle
        assert supply.busy.beside(nothing, ()) == nothing | busy
        return decided


@pytest.mark.parametrize("mix", sorted(MIXES))
def test_it_is_what_a_count_finds(mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.scheduler_world.Scheduler", _Counted)
    for seed in range(3):
        play(random_script(random.Random(seed), 200), MIXES[mix], ())
