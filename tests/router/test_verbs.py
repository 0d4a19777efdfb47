"""From parameters to tasks, and from deltas to whole replies."""

from __future__ import annotations

import struct
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from llm_router_mw.errors import InvalidRequestError, LeaseExpiredError, LLMRouterError
from llm_router_mw.router.verbs import LeaseVerbs, embedding_reply, generation_task, text_reply
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    EmbedTask,
    FinishDelta,
    Sampling,
    Task,
    Timings,
    Usage,
)

MESSAGE = {"role": "user", "content": "hi"}
USAGE = Usage(prompt_tokens=2, completion_tokens=3)
FINISH = FinishDelta("stop", USAGE, Timings(prompt_seconds=1.0))


def chat(**parameters: Any) -> ChatTask:
    return generation_task(ChatTask, {"messages": (MESSAGE,)}, parameters)


def test_parameters_are_those_of_the_task_and_of_sampling() -> None:
    assert chat(max_tokens=5, temperature=0, seed=3, stop=["x", "y"]) == ChatTask(
        messages=(MESSAGE,),
        max_tokens=5,
        stop=("x", "y"),
        sampling=Sampling(temperature=0.0, seed=3),
    )


def test_one_stop_string_may_stand_alone() -> None:
    assert chat(stop="end").stop == ("end",)


def test_sampling_may_be_given_whole_and_refined() -> None:
    assert chat(sampling=Sampling(top_k=3)).sampling == Sampling(top_k=3)
    assert chat(sampling=Sampling(top_k=3), seed=4).sampling == Sampling(top_k=3, seed=4)


def test_a_prompt_is_text_or_tokens() -> None:
    for prompt in ("once", (1, 2)):
        task = generation_task(CompletionTask, {"prompt": prompt}, {})
        assert task == CompletionTask(prompt=prompt)


def test_an_unknown_parameter_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        InvalidRequestError, match=r"'temprature'; known: .*max_tokens.* top_p"
    ) as e:
        chat(temprature=1)
    assert e.value.param == "temprature"


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"top_k": "many"}, "top_k"),
        ({"stop": 5}, "stop"),
        ({"sampling": 5}, "sampling"),
        ({"sampling": 5, "top_k": 3}, "sampling"),
    ],
)
def test_a_wrong_type_is_named(parameters: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"[Ee]xpected") as caught:
        chat(**parameters)
    assert caught.value.param == param


def test_a_message_that_is_no_object_is_named() -> None:
    with pytest.raises(InvalidRequestError, match=r"^messages\[0\]: expected `object`") as caught:
        generation_task(ChatTask, {"messages": tuple("hello")}, {})
    assert caught.value.param == "messages[0]"


def test_a_text_reply_is_all_text_and_the_finish() -> None:
    reply = text_reply([ContentDelta("a"), ContentDelta("b"), FINISH])
    assert (reply.text, reply.finish_reason, reply.usage) == ("ab", "stop", USAGE)
    assert reply.timings.prompt_seconds == 1.0


def test_vectors_come_in_the_order_of_the_inputs() -> None:
    deltas: list[Delta] = [
        EmbeddingDelta(1, struct.pack("<2f", 3, 4)),
        EmbeddingDelta(0, struct.pack("<2f", 1, 2)),
        FINISH,
    ]
    assert embedding_reply(deltas).vectors == ((1.0, 2.0), (3.0, 4.0))


def test_vectors_are_little_endian_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    deltas: list[Delta] = [EmbeddingDelta(0, struct.pack(">2f", 1, 2)), FINISH]
    # Bytes in the order that this machine would see if it were a big-endian one.
    assert embedding_reply(deltas).vectors == ((1.0, 2.0),)


@pytest.mark.parametrize("deltas", [[], [ContentDelta("a")]])
def test_an_answer_without_an_end_is_an_error(deltas: list[Delta]) -> None:
    with pytest.raises(LLMRouterError, match="without a result"):
        text_reply(deltas)


class Answer:
    """A stream of given deltas."""

    def __init__(self, deltas: Sequence[Delta]) -> None:
        self._deltas = list(deltas)
        self.cancels = 0

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        if not self._deltas:
            raise StopAsyncIteration
        return self._deltas.pop(0)

    @property
    def usage(self) -> Usage:
        return Usage()  # pragma: no cover

    def cancel(self, error: LLMRouterError | None = None) -> None:
        self.cancels += 1


class Verbs(LeaseVerbs):
    """Verbs over one answer."""

    def __init__(self, *deltas: Delta) -> None:
        self.answer = Answer(deltas)
        self.task: Task | None = None

    def stream(self, task: Task, *, release: bool = False) -> Answer:
        self.task = task
        return self.answer


@pytest.mark.asyncio
async def test_a_verb_reads_its_stream_to_the_end() -> None:
    lease = Verbs(ContentDelta("hi"), FINISH)
    assert (await lease.chat([MESSAGE], max_tokens=1)).text == "hi"
    assert lease.task == ChatTask(messages=(MESSAGE,), max_tokens=1)
    assert lease.answer.cancels == 1  # harmless at the end, and right if it is cut off


@pytest.mark.asyncio
async def test_complete_takes_tokens_and_embed_one_text_or_many() -> None:
    lease = Verbs(FINISH)
    await lease.complete([1, 2])
    assert lease.task == CompletionTask(prompt=(1, 2))
    one, many = Verbs(FINISH), Verbs(FINISH)
    await one.embed("x")
    await many.embed(["x", "y"])
    assert (one.task, many.task) == (EmbedTask(inputs=("x",)), EmbedTask(inputs=("x", "y")))


@pytest.mark.asyncio
async def test_half_an_answer_is_not_passed_off_as_a_whole_one() -> None:
    lease = Verbs(ContentDelta("half an ans"), FinishDelta("cancelled", USAGE))
    with pytest.raises(LeaseExpiredError, match="before the answer was complete"):
        await lease.chat([MESSAGE])
