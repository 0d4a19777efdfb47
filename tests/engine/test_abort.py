"""Giving up a step that nobody waits for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from llm_router_mw.engine.abort import StepAbort
from tests.engine.conftest import Load
from tests.engine.driver import prompt
from tests.support.tiny_models import FIRST_PIECE, write_tiny_llama


@pytest.fixture(scope="session")
def slow(folder: Path) -> Path:
    """A model whose prompts take a while."""
    return write_tiny_llama(folder / "slow.gguf", n_embd=512, n_layer=6, n_ctx_train=4096)


def flag(abort: StepAbort) -> bytes:
    return abort._flag.value


def test_a_step_goes_on_while_anybody_waits() -> None:
    abort = StepAbort()
    with abort.step({1, 2}):
        abort.leave(1)
        assert flag(abort) == b""
        abort.leave(2)
        assert flag(abort) == b"\1"


def test_all_may_leave_at_once() -> None:
    abort = StepAbort()
    with abort.step({1, 2}):
        abort.leave_all()
        assert flag(abort) == b"\1"


def test_the_next_step_is_not_harmed() -> None:
    abort = StepAbort()
    with abort.step({1}):
        abort.leave(1)
    with abort.step({2}):
        assert flag(abort) == b""


def test_between_steps_nothing_is_given_up() -> None:
    abort = StepAbort()
    abort.leave(1)
    abort.leave_all()
    assert flag(abort) == b""


def test_a_long_step_ends_when_its_request_is_cancelled(load: Load, slow: Path) -> None:
    driver = load(slow, n_ctx=4096, n_batch=4096)
    tokens = tuple(FIRST_PIECE + n * n % 100 for n in range(4000))
    whole = driver.submit(prompt(tokens, max_tokens=1))
    began = time.monotonic()
    driver.run()
    unhurried = time.monotonic() - began
    assert driver.finish(whole)

    other = tuple(FIRST_PIECE + (n * n + 7) % 100 for n in range(4000))
    doomed = driver.submit(prompt(other, max_tokens=1))
    hurry = threading.Timer(unhurried / 10, driver.engine.overhear, (doomed,))
    hurry.start()
    began = time.monotonic()
    driver.step()
    assert time.monotonic() - began < 0.8 * unhurried
    driver.engine.cancel(doomed)
    hurry.join()

    # Nothing of it is left to lead others astray.
    again = driver.submit(prompt(other[:300], max_tokens=20))
    driver.run()
    assert driver.finish(again).usage.cached_tokens == 0
    assert driver.text(again) == load(slow).answer(prompt(other[:300], max_tokens=20))
