"""The engine falls asleep and wakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.engine import engine as engine_module
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.model import LoadAbortedError
from llm_router_mw.errors import ModelLoadError, WireError
from llm_router_mw.types import EmbedTask, FailureDelta, SleepLevel
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt

LEVELS: list[SleepLevel] = ["context", "full"]


def put_to_sleep(driver: Driver, level: SleepLevel) -> None:
    driver.engine.retire()
    driver.engine.sleep(level)


@pytest.mark.parametrize("level", LEVELS)
def test_it_generates_as_before(load: Load, endless: Path, level: SleepLevel) -> None:
    driver = load(endless)
    before = driver.answer(prompt(max_tokens=9))
    put_to_sleep(driver, level)
    assert not driver.step()
    driver.engine.wake()
    assert driver.answer(prompt(max_tokens=9)) == before


@pytest.mark.parametrize("level", LEVELS)
def test_it_embeds_as_before(load: Load, endless: Path, level: SleepLevel) -> None:
    driver = load(endless, pooling="mean")
    task = EmbedTask(inputs=("the fox",))

    def vectors() -> Any:
        request = driver.submit(task)
        driver.run()
        return driver.vectors(request)

    before = vectors()
    put_to_sleep(driver, level)
    driver.engine.wake()
    assert vectors() == before


def test_the_weights_are_read_again_only_if_they_were_freed(load: Load, endless: Path) -> None:
    driver = load(endless)
    seen: list[float] = []

    def note(fraction: float) -> bool:
        seen.append(fraction)
        return True

    put_to_sleep(driver, "context")
    driver.engine.wake(note)
    assert seen == []
    put_to_sleep(driver, "full")
    driver.engine.wake(note)
    assert seen[-1] == 1.0


def test_it_warms_up_at_the_first_load_only(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed: list[int] = []
    monkeypatch.setattr(Context, "warm_up", lambda self, token: warmed.append(token))
    driver = load(endless)
    put_to_sleep(driver, "full")
    driver.engine.wake()
    assert len(warmed) == 1


def test_requests_keep_it_awake(load: Load, endless: Path) -> None:
    driver = load(endless)
    request = driver.submit(prompt(max_tokens=3))
    with pytest.raises(WireError, match="while 1 requests are under way"):
        driver.engine.retire()
    driver.run()
    assert driver.finish(request).reason == "length"
    driver.engine.retire()


def test_late_requests_are_asked_to_come_again(load: Load, endless: Path) -> None:
    driver = load(endless)
    driver.engine.retire()
    request = driver.submit(prompt())
    driver.run()
    (failed,) = driver.deltas[request]
    assert isinstance(failed, FailureDelta)
    assert failed.failure.kind == "ModelUnloadedError"
    driver.engine.cancel(request)  # it is over already
    assert not driver.engine.busy


def test_only_a_sleeper_can_be_woken(load: Load, endless: Path) -> None:
    driver = load(endless)
    with pytest.raises(WireError, match="not asleep"):
        driver.engine.wake()


def test_a_wake_that_is_called_off_leaves_it_asleep(load: Load, endless: Path) -> None:
    driver = load(endless)
    before = driver.answer(prompt(max_tokens=3))
    put_to_sleep(driver, "full")
    with pytest.raises(LoadAbortedError):
        driver.engine.wake(lambda fraction: False)
    driver.engine.wake()
    assert driver.answer(prompt(max_tokens=3)) == before


@pytest.mark.parametrize("level", LEVELS)
def test_memory_that_cannot_be_had_is_told_and_nothing_stays(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch, level: SleepLevel
) -> None:
    driver = load(endless)
    put_to_sleep(driver, level)

    def fail(*arguments: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(engine_module, "Context", fail)
        with pytest.raises(ModelLoadError, match="not enough memory") as caught:
            driver.engine.wake()
    assert caught.value.out_of_memory
    assert driver.engine._model is None
    driver.engine.wake()
    assert driver.answer(prompt(max_tokens=3))
