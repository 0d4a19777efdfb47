"""Estimates that take a child process are prepared at the start, or as a request needs them."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import MemoryAccount, PlacementPolicy, PreparingEstimator
from llm_router_mw.router import dry_runs
from llm_router_mw.router.dry_runs import DryRuns
from llm_router_mw.router.placing import Placing
from llm_router_mw.types import (
    HOST,
    Device,
    InstanceKey,
    LoadOptions,
    MemoryEstimate,
    Model,
    Placement,
)
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

PLACES = tuple(Placement(n_gpu_layers=n) for n in range(6))


def model(name: str) -> Model:
    return Model(id=name, path=f"/{name}.gguf", source="test", options=LoadOptions())


class Slow:
    """An estimator that prepares when it is let, and knows little of models called ``new…``."""

    name = "slow"

    def __init__(self) -> None:
        self.prepared: list[tuple[str, int]] = []
        self.begun: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.cut_short = 0
        self.failure: Exception | None = None

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate | None:
        return None

    def is_wanted(self, model: Model) -> bool:
        if model.id == "gone":
            raise ModelFileError("there is no such file")
        return model.id.startswith("new")

    def is_prepared(self, model: Model, placement: Placement, devices: Sequence[Device]) -> bool:
        return (model.id, placement.n_gpu_layers) in self.prepared

    def needs(self, placement: Placement, devices: Sequence[Device]) -> Mapping[str, int]:
        return {HOST: 10}

    def prepare(self, model: Model, placement: Placement, devices: Sequence[Device]) -> None:
        cut_short = self.cut_short
        self.begun.append(model.id)
        if self.failure is not None:
            raise self.failure
        assert self.go_on.wait(20)
        if self.cut_short == cut_short:
            self.prepared.append((model.id, placement.n_gpu_layers))

    def cancel(self) -> None:
        if not self.go_on.is_set():
            self.cut_short += 1
            self.go_on.set()


class Account:
    def __init__(self) -> None:
        self.free = 100
        self.said: list[Mapping[str, int]] = []

    def hold(self, bytes_by_pool: Mapping[str, int]) -> None:
        self.said.append(bytes_by_pool)

    def room(self, pool: str) -> int:
        return self.free


class Places:
    name = "places"

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        return PLACES


class Stage:
    def __init__(self, when: Any = "auto", policy: PlacementPolicy | None = None) -> None:
        self.slow, self.account = Slow(), Account()
        self.told: list[InstanceKey] = []
        assert isinstance(self.slow, PreparingEstimator)
        account: MemoryAccount = self.account
        self.faults = Faults()
        placing = Placing(policy or Places(), Places(), self.faults)
        self.runs = DryRuns(when, (self.slow,), placing, account, lambda: (), self.faults)

    async def run(self, *names: str) -> None:
        await self.runs.run(map(model, names), self.told.append)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_runs, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(dry_runs, "_ROOM_SECONDS", 0)


@asynccontextmanager
async def beside(call: Callable[[], Any]) -> AsyncIterator[anyio.CancelScope]:
    """Run *call* beside what follows, and wait for it in the end."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            yield tasks.cancel_scope


async def test_the_best_places_of_those_that_nobody_knows_are_prepared() -> None:
    stage = Stage()
    await stage.run("old", "new", "newer")
    assert stage.slow.prepared == [(name, n) for name in ("new", "newer") for n in range(4)]
    assert [key.path for key in stage.told] == ["/new.gguf", "/newer.gguf"]


async def test_all_are_if_somebody_says_so_and_none_if_not() -> None:
    stage = Stage("always")
    await stage.run("old")
    assert len(stage.slow.prepared) == 4
    stage = Stage("never")
    await stage.run("new")
    await stage.runs.before_price(model("new"))
    assert stage.slow.prepared == []


async def test_nothing_is_prepared_twice() -> None:
    stage = Stage()
    await stage.run("new")
    await stage.run("new")
    await stage.runs.before_price(model("new"))
    assert len(stage.slow.begun) == 4
    assert len(stage.told) == 1


async def test_memory_is_charged_while_it_is_used() -> None:
    stage = Stage()
    await stage.runs.before_price(model("new"))
    assert stage.account.said == [{HOST: 10}, {}] * 4


async def test_a_request_goes_on_where_there_is_no_room_for_it() -> None:
    stage = Stage()
    stage.account.free = 9
    await stage.runs.before_price(model("new"))
    assert stage.slow.begun == []


async def test_in_the_background_it_waits_for_room() -> None:
    stage = Stage()
    stage.account.free = 9
    async with beside(lambda: stage.run("new")):
        await anyio.wait_all_tasks_blocked()
        assert stage.slow.begun == []
        stage.account.free = 10
    assert len(stage.slow.prepared) == 4


async def test_what_a_request_needs_goes_before_what_nobody_waits_for() -> None:
    stage = Stage()
    stage.slow.go_on.clear()
    async with beside(lambda: stage.run("new-one")):
        await until(lambda: stage.slow.begun == ["new-one"], 20)
        await stage.runs.before_price(model("new-other"))
        assert stage.slow.cut_short == 1
        assert {name for name, _ in stage.slow.prepared} == {"new-other"}
    # And what was cut short is done after all.
    assert {name for name, _ in stage.slow.prepared} == {"new-other", "new-one"}


async def test_one_that_is_cut_short_again_and_again_is_given_up() -> None:
    stage = Stage()

    async def disturb() -> None:
        for number in range(3):
            begun = len(stage.slow.begun)
            stage.slow.go_on.clear()
            await until(lambda begun=begun: len(stage.slow.begun) > begun, 20)  # type: ignore[misc]
            await stage.runs.before_price(model(f"new-{number}"))
            assert stage.slow.cut_short == number + 1

    stage.slow.go_on.clear()
    async with beside(lambda: stage.run("new")):
        await disturb()
    assert not any(name == "new" for name, _ in stage.slow.prepared)


async def test_closing_cuts_it_short_and_gives_its_memory_back() -> None:
    stage = Stage()
    stage.slow.go_on.clear()
    async with beside(lambda: stage.run("new")) as scope:
        await until(lambda: bool(stage.slow.begun), 20)
        scope.cancel()
    assert stage.slow.cut_short == 1
    assert stage.account.said[-1] == {}


@pytest.mark.parametrize(
    ("error", "is_bug"), [(ModelFileError("it is broken"), False), (TypeError("a bug"), True)]
)
async def test_one_that_fails_ends_nothing(
    error: Exception, is_bug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    stage.slow.failure = error
    await stage.run("gone", "new", "newer")
    assert set(stage.slow.begun) == {"new", "newer"}
    assert stage.account.said[-1] == {}
    # What was told of the first of two models is not told again of the second.
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(errors) == is_bug
    assert stage.faults.counts == ({"estimator 'slow'": 8} if is_bug else {})


@pytest.mark.parametrize("question", ["is_wanted", "is_prepared", "needs"])
async def test_one_that_cannot_say_what_it_would_do_ends_nothing(question: str) -> None:
    def fail(*arguments: object) -> Any:
        raise TypeError("a bug")

    stage = Stage()
    setattr(stage.slow, question, fail)
    await stage.run("new")
    await stage.runs.before_price(model("newer"))
    assert stage.slow.begun == []
    assert set(stage.faults.counts) == {"estimator 'slow'"}


async def test_one_that_cannot_end_is_waited_for() -> None:
    def fail() -> None:
        stage.slow.go_on.set()
        raise TypeError("a bug")

    stage = Stage()
    stage.slow.go_on.clear()
    stage.slow.cancel = fail  # type: ignore[method-assign]
    async with beside(lambda: stage.run("new")) as scope:
        await until(lambda: bool(stage.slow.begun), 20)
        scope.cancel()
    assert stage.faults.counts == {"estimator 'slow'": 1}
    assert stage.account.said[-1] == {}


async def test_one_that_was_told_to_end_before_it_had_begun_is_told_again() -> None:
    told = threading.Event()
    ended = threading.Event()

    class Late(Slow):
        def prepare(self, model: Model, placement: Placement, devices: Sequence[Device]) -> None:
            self.begun.append(model.id)
            assert told.wait(20)
            told.clear()  # whatever it was told so far is forgotten as it begins
            assert told.wait(20)
            ended.set()

        def cancel(self) -> None:
            told.set()

    stage = Stage()
    late = Late()
    stage.runs = DryRuns("auto", (late,), Places(), stage.account, lambda: (), stage.faults)
    async with beside(lambda: stage.run("new")) as scope:
        await until(lambda: bool(late.begun), 20)
        scope.cancel()
    assert ended.is_set()


async def test_where_the_policy_fails_the_stand_in_s_places_are_prepared() -> None:
    class Broken(Places):
        def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
            raise TypeError("a bug")

    stage = Stage(policy=Broken())
    await stage.run("new")
    assert len(stage.slow.prepared) == 4
    assert stage.faults.counts == {"placement policy 'places'": 1}
