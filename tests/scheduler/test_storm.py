"""All promises together in a storm of random worlds, and the tools that show a failure."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.simulator.event_trace import read_event_trace
from tests.support.scheduler_checks import PROMISES
from tests.support.scheduler_mixes import MIXES, USUAL
from tests.support.scheduler_records import Violation
from tests.support.scheduler_script import play, random_script, shortest, written
from tests.support.scheduler_storm import main
from tests.support.scheduling import Lru

STEPS = 55_000


@pytest.mark.timeout(300)
def test_a_storm_breaks_no_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", str(STEPS), "--seed", "1"]) == 0
    assert "all promises kept" in capsys.readouterr().out


def test_a_run_can_be_repeated() -> None:
    script = random_script(random.Random(7), 100)
    first, second = play(script, USUAL), play(script, USUAL)
    assert first.book.trace == second.book.trace


def test_a_trace_is_replayed_to_the_same_decisions() -> None:
    script = random_script(random.Random(8), 100)
    world = play(script, MIXES["sleepy"])
    setup, trace = read_event_trace(written(world).splitlines())
    replayed = Scheduler(Lru(), setup.limits)
    again = Scheduler(Lru(), setup.limits)
    for (at, event), (at_first, event_first) in zip(trace, world.book.trace, strict=True):
        assert replayed.decide(event, at) == again.decide(event_first, at_first)


class _Greedy(Scheduler):
    """Sends away what is in use as soon as somebody else asks."""

    def decide(self, event: events.Event, now: float) -> list[actions.Action]:
        decided = super().decide(event, now)
        if isinstance(event, events.Request):
            decided += self._victims()
        return decided

    def _victims(self) -> Iterator[actions.Action]:
        for instance in self.instances():
            if instance.leases:
                yield actions.Stop(instance.key, instance.generation)


def test_a_broken_promise_is_found_and_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.scheduler_world.Scheduler", _Greedy)
    script = random_script(random.Random(3), 300)
    promises = [PROMISES["a leased instance is never a victim"]]
    with pytest.raises(Violation, match="a leased instance is never a victim"):
        play(script, USUAL, promises)
    short = shortest(script, USUAL, promises)
    assert len(short) < 12
    with pytest.raises(Violation) as caught:
        play(short, USUAL, promises)
    setup, trace = read_event_trace(caught.value.__notes__[0].splitlines())
    assert setup.limits.models_max >= 0
    assert any(isinstance(event, events.Request) for _, event in trace)


def test_the_driver_shows_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.support.scheduler_world.Scheduler", _Greedy)
    assert main(["--steps", "10000", "--mix", "crowded", "--moves", "100"]) == 1
    shown = capsys.readouterr()
    assert "got Stop" in shown.err
    assert '"type":"Request"' in shown.out
