"""Frames for what app code has made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.router.frame import checked_frame
from llm_router_mw.types import ChatTask, CompletionTask, EmbedTask, Sampling
from llm_router_mw.wire import Submit, encode


def test_a_message_becomes_the_frame_that_it_is_on_the_wire() -> None:
    message = Submit(1, ChatTask(messages=({"role": "user", "content": "hello"},)))
    assert checked_frame(message) == encode(message)


@pytest.mark.parametrize(
    "task",
    [
        EmbedTask(inputs=(object(),)),  # type: ignore[arg-type]  # nothing that can be written
        EmbedTask(inputs=(7,)),  # type: ignore[arg-type]  # nothing that would be read
        CompletionTask(prompt="x", sampling=Sampling(seed=2**70)),
        "no task",
    ],
)
def test_what_the_other_end_could_not_read_is_refused(task: Any) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be sent to the process"):
        checked_frame(Submit(1, task))


def test_numbers_that_are_none_are_carried() -> None:
    frame = checked_frame(Submit(1, CompletionTask(prompt="x", sampling=Sampling(top_p=math.nan))))
    assert frame
