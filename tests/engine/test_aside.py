"""Large requests are prepared beside the running ones."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from threading import Event, Timer
from typing import Any

import pytest

from llm_router_mw.engine.aside import Aside, is_heavy
from llm_router_mw.engine.engine import Engine
from llm_router_mw.types import (
    CompletionTask,
    Delta,
    FailureDelta,
    FinishDelta,
    LoadOptions,
    Sampling,
)
from tests.engine.driver import CHAT_FORMATS

LARGE = CompletionTask(prompt="word " * 5000, sampling=Sampling(temperature=0), max_tokens=3)
FITTING = CompletionTask(prompt=" " * 20_000, sampling=Sampling(temperature=0), max_tokens=3)
SMALL = CompletionTask(prompt="word", sampling=Sampling(temperature=0), max_tokens=30)


class Stage:
    """An engine with a second thread, whose results the test hands over."""

    def __init__(self, path: Path, n_ctx: int) -> None:
        self.results: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        self.deltas: list[tuple[int, Delta]] = []
        aside = Aside(lambda request_id, result: self.results.put((request_id, result)))
        self.engine = Engine(self.deltas.extend, aside)
        self.engine.load(str(path), LoadOptions(n_threads=1, n_ctx=n_ctx), CHAT_FORMATS)

    def hand_over(self) -> None:
        self.engine.prepared(*self.results.get(timeout=20))

    def run(self) -> None:
        while self.engine.step():
            pass

    def last(self, request_id: int) -> Delta:
        return [delta for each, delta in self.deltas if each == request_id][-1]


@pytest.fixture
def stage(endless: Path, request: pytest.FixtureRequest) -> Any:
    stage = Stage(endless, getattr(request, "param", 512))
    yield stage
    stage.engine.close()


def test_only_large_tasks_are_heavy() -> None:
    assert is_heavy(LARGE)
    assert not is_heavy(SMALL)


def test_others_run_while_a_large_one_is_prepared(stage: Stage) -> None:
    stage.engine.submit(1, SMALL, 1000)
    stage.engine.submit(2, LARGE, 1000)
    stage.run()
    assert isinstance(stage.last(1), FinishDelta)
    stage.hand_over()
    stage.run()
    failure = stage.last(2)
    assert isinstance(failure, FailureDelta)
    assert failure.failure.kind == "ContextExceededError"


@pytest.mark.parametrize("stage", [32_768], indirect=True)
def test_when_it_is_ready_it_joins(stage: Stage) -> None:
    stage.engine.submit(1, FITTING, 1000)
    stage.run()
    assert not stage.deltas
    stage.hand_over()
    stage.run()
    finish = stage.last(1)
    assert isinstance(finish, FinishDelta)
    assert finish.usage.completion_tokens == 3


@pytest.mark.parametrize("stage", [32_768], indirect=True)
def test_one_that_is_cancelled_when_it_is_ready_does_not(stage: Stage) -> None:
    stage.engine.submit(1, FITTING, 1000)
    result = stage.results.get(timeout=20)
    stage.engine.cancel(1)
    stage.run()
    assert stage.last(1) == FinishDelta("cancelled", stage.last(1).usage)  # type: ignore[union-attr]
    stage.engine.prepared(*result)
    stage.run()
    assert len(stage.deltas) == 1


def test_one_that_is_cancelled_before_its_turn_is_not_prepared(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, prepared = Event(), Event(), []
    prepare = Engine._prepare

    def held(engine: Engine, task: Any) -> Any:
        begun.set()
        assert gate.wait(20)
        prepared.append(task)
        return prepare(engine, task)

    monkeypatch.setattr(Engine, "_prepare", held)
    stage.engine.submit(1, LARGE, 1000)
    assert begun.wait(20)
    stage.engine.submit(2, FITTING, 1000)
    stage.engine.submit(3, LARGE, 1000)
    stage.engine.cancel(2)
    gate.set()
    stage.hand_over()
    stage.hand_over()
    stage.run()
    assert prepared == [LARGE, LARGE]
    assert isinstance(stage.last(2), FinishDelta)
    assert isinstance(stage.last(3), FailureDelta)


def test_closing_waits_only_for_what_has_begun() -> None:
    begun, gate, dropped = Event(), Event(), Event()
    told: list[tuple[int, Any]] = []

    def first() -> str:
        begun.set()
        assert gate.wait(20)
        return "first"

    def second() -> None:
        dropped.set()

    aside = Aside(lambda request_id, result: told.append((request_id, result)))
    aside.put(1, first)
    assert begun.wait(20)
    aside.put(2, second)
    assert not aside.drop(1)
    opener = Timer(0.05, gate.set)
    opener.start()
    aside.close()
    opener.join()
    assert told == [(1, "first")]
    assert not dropped.is_set()


def test_credit_that_comes_meanwhile_is_not_lost(endless: Path) -> None:
    stage = Stage(endless, 32_768)
    stage.engine.submit(1, FITTING, 0)
    stage.engine.credit(1, 5)
    stage.hand_over()
    stage.run()
    assert isinstance(stage.last(1), FinishDelta)
    stage.engine.close()
