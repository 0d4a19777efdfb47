"""Deltas and tasks cross the pipe as they are."""

from __future__ import annotations

import msgspec
import pytest

from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    EmbedTask,
    Failure,
    FailureDelta,
    FinishDelta,
    Sampling,
    Task,
    Usage,
)


def test_usage_adds_up() -> None:
    assert Usage(prompt_tokens=3, completion_tokens=4).total_tokens == 7


@pytest.mark.parametrize(
    "delta",
    [
        ContentDelta("text"),
        EmbeddingDelta(1, b"\0\0\x80?"),
        FinishDelta("length", Usage(prompt_tokens=1)),
        FailureDelta(Failure(kind="WireError", message="broken", fields={"n": 1})),
    ],
)
def test_a_delta_is_told_by_its_tag(delta: Delta) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(delta), type=Delta) == delta


@pytest.mark.parametrize(
    "task",
    [
        ChatTask(messages=({"role": "user", "content": "hi"},), sampling=Sampling(seed=1)),
        CompletionTask(prompt="hi", max_tokens=3, stop=("\n",)),
        CompletionTask(prompt=(1, 2)),
        EmbedTask(inputs=("hi", (1, 2))),
    ],
)
def test_a_task_is_told_by_its_tag(task: Task) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(task), type=Task) == task
