"""Waiting for an answer of the host."""

from __future__ import annotations

import anyio
import pytest

from llm_router_mw.errors import HostDiedError, ModelNotFoundError
from llm_router_mw.shared.messages import Granted
from llm_router_mw.shared.question import Question

pytestmark = pytest.mark.asyncio


async def test_the_answer_ends_the_waiting() -> None:
    question, granted = Question(None), Granted(1, ())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(question.answer)
        question.succeed(granted)
    assert await question.answer() is granted


async def test_a_failure_is_raised() -> None:
    question = Question(None)
    question.fail(ModelNotFoundError("no model"))
    with pytest.raises(ModelNotFoundError):
        await question.answer()


async def test_an_answer_that_has_come_outlasts_the_host() -> None:
    question, granted = Question(None), Granted(1, ())
    question.succeed(granted)
    question.fail(HostDiedError("gone"))
    assert await question.answer() is granted
