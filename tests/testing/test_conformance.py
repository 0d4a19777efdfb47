"""The suites for plugins: ours pass them, and broken ones are told what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw import testing
from llm_router_mw.config import RouterConfig
from llm_router_mw.engine.chat_template import ContentParser, TemplateChatFormat
from llm_router_mw.protocols import ChatFormat, ExitReport, PreparedPrompt
from llm_router_mw.router.registry import Registry, load_registry
from llm_router_mw.testing import FakeDevices, FakeEngine, FakeInstance, FakePlugin, FakeStream
from llm_router_mw.types import (
    ContentDelta,
    Cost,
    Delta,
    Device,
    MemoryEstimate,
    Model,
    Placement,
    Task,
)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    config = RouterConfig(observations_dir=str(tmp_path_factory.mktemp("observations")))
    return load_registry(config, use_installed=False)


def test_our_eviction_policies_conform(shipped: Registry) -> None:
    for policy in shipped.policies.values():
        testing.check_eviction_policy(policy)


def test_our_placement_policy_conforms(shipped: Registry, tmp_path: Path) -> None:
    for policy in shipped.placements.values():
        testing.check_placement_policy(policy, tmp_path)


@pytest.mark.parametrize("name", ["metadata", "file-size", "observed"])
def test_our_estimators_conform(name: str, shipped: Registry, tmp_path: Path) -> None:
    testing.check_estimator(shipped.estimators[name], tmp_path)


def test_our_host_probe_conforms(shipped: Registry) -> None:
    testing.check_device_probe(shipped.probes["host"])


def test_the_fakes_conform(tmp_path: Path) -> None:
    testing.check_device_probe(FakeDevices({"gpu": 100}))
    testing.check_model_source(FakePlugin(tmp_path)._source)


@pytest.mark.asyncio
async def test_the_fake_engine_conforms(tmp_path: Path) -> None:
    [model, *_] = FakePlugin(tmp_path)._source.models()
    await testing.check_engine(FakeEngine(), model)


@pytest.mark.asyncio
async def test_our_engine_conforms(shipped: Registry, demo_models: Path) -> None:
    model = Model(id="m", path=str(demo_models / "guide.gguf"), source="test")
    await testing.check_engine(shipped.engines["process"], model)


class Odd:
    """An object of any kind, as wrong as *answer* is."""

    name = "odd"

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.rank = self.place = self.estimate = self.inventory = self.models = answer

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        return {}


def turns(*answers: Callable[..., Any]) -> Callable[..., Any]:
    """Return what answers in another way each time."""
    calls = iter(answers * 100)
    return lambda *arguments: next(calls)(*arguments)


@pytest.mark.parametrize(
    ("rank", "why"),
    [
        (lambda candidates, *_: [object()], "made candidates up"),
        (lambda candidates, *_: [candidates[0]] * 2, "named a candidate twice"),
        (
            turns(lambda c, *_: list(c), lambda c, *_: list(c)[::-1]),
            "rank must be pure",
        ),
    ],
)
def test_a_policy_that_ranks_badly_is_told(rank: Callable[..., Any], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        testing.check_eviction_policy(Odd(rank))


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (lambda model, devices: ["host"], "is no Placement"),
        (lambda model, devices: [Placement(devices=("nowhere",))], "it places on"),
        (
            lambda model, devices: [Placement(degraded=True), Placement()],
            "degraded placement comes before",
        ),
        (turns(lambda *_: [Placement()], lambda *_: []), "place must be pure"),
    ],
)
def test_a_policy_that_places_badly_is_told(
    place: Callable[..., Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=why):
        testing.check_placement_policy(Odd(place), tmp_path)


def estimate(device: str, expected: int, upper: int) -> MemoryEstimate:
    return MemoryEstimate(
        expected={device: Cost(weights_bytes=expected)},
        upper={device: upper},
        source="odd",
        confidence="low",
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [(estimate("nowhere", 1, 2), "it charges 'nowhere'"), (estimate("host", 2, 1), "1 at most")],
)
def test_an_estimator_that_contradicts_itself_is_told(
    answer: MemoryEstimate, why: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=why):
        testing.check_estimator(Odd(lambda *_: answer), tmp_path)


def device(id: str, free: int, total: int) -> Device:
    return Device(id=id, pool=id, kind="other", name=id, free_bytes=free, total_bytes=total)


@pytest.mark.parametrize(
    ("devices", "why"),
    [
        ([device("a", 1, 2), device("a", 1, 2)], "two devices have one id"),
        ([device("a", 3, 2)], "has 3 bytes free of 2"),
        (["a"], "holds Device only"),
    ],
)
def test_a_probe_that_cannot_be_right_is_told(devices: list[Any], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        testing.check_device_probe(Odd(lambda: devices))


def test_a_source_with_two_models_of_one_id_is_told() -> None:
    model = Model(id="a", path="/a.gguf", source="odd")
    with pytest.raises(AssertionError, match="two models have one id"):
        testing.check_model_source(Odd(lambda: [model, model]))


def test_our_chat_format_conforms() -> None:
    testing.check_chat_format(TemplateChatFormat)


class Forgetful(TemplateChatFormat):
    """Leaves out what was said."""

    def prepare(self, *arguments: Any, **more: Any) -> PreparedPrompt:
        return PreparedPrompt(prompt="Well?")


class Choppy(TemplateChatFormat):
    """Reads pieces of one character as nothing."""

    def parser(self) -> ContentParser:
        class Parser(ContentParser):
            def feed(self, text: str) -> Sequence[Delta]:
                return super().feed(text) if len(text) > 1 else ()

        return Parser()


@pytest.mark.parametrize(
    ("made", "why"), [(Forgetful, "does not hold what was said"), (Choppy, "in pieces it reads")]
)
def test_a_chat_format_that_loses_something_is_told(made: type[ChatFormat], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        testing.check_chat_format(made)


class Endless(FakeInstance):
    """Its answers have no end."""

    def submit(self, task: Task, on_finished: Callable[[], None]) -> FakeStream:
        stream = FakeStream([ContentDelta("on and on")], on_finished)
        stream.give()
        return stream


class Twice(FakeInstance):
    """Says twice that it has finished."""

    def submit(self, task: Task, on_finished: Callable[[], None]) -> FakeStream:
        def finished() -> None:
            on_finished()
            on_finished()

        return super().submit(task, finished)


class Refusing(FakeInstance):
    """Does not stop as it was asked."""

    async def wait(self) -> ExitReport:
        return ExitReport(exit_code=1, offence="it took too long")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("instance", "why"),
    [
        (Endless, "on_finished was called 0 times"),
        (Twice, "on_finished was called 2 times"),
        (Refusing, "it did not stop as it was asked: it took too long"),
    ],
)
async def test_an_engine_that_breaks_its_word_is_told(
    instance: type[FakeInstance], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(engine: FakeEngine) -> FakeInstance:
        return instance(engine)

    monkeypatch.setattr(FakeEngine, "create", create)
    [model, *_] = FakePlugin(tmp_path)._source.models()
    with pytest.raises(AssertionError, match=why):
        await testing.check_engine(FakeEngine(), model)
