"""What one can do with a lease, in terms of streaming: shared by leases of every kind."""

from __future__ import annotations

import array
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from llm_router_mw.errors import InvalidRequestError, LeaseExpiredError, LLMRouterError
from llm_router_mw.protocols import DeltaStream
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    EmbeddingReply,
    EmbedTask,
    FinishDelta,
    GenerationTask,
    Sampling,
    Task,
    TextReply,
)
from llm_router_mw.wrong_options import wrong_value

TaskT = TypeVar("TaskT", bound=GenerationTask)


class LeaseVerbs(ABC):
    """``chat``, ``complete`` and ``embed``, made of ``stream``."""

    @abstractmethod
    def stream(self, task: Task, *, release: bool = False) -> DeltaStream:
        """Start *task*; with *release* the lease ends as soon as the worker is done with it."""

    async def chat(self, messages: Sequence[dict[str, Any]], **parameters: Any) -> TextReply:
        task = generation_task(ChatTask, {"messages": tuple(messages)}, parameters)
        return text_reply(await self._collect(task))

    async def complete(self, prompt: str | Sequence[int], **parameters: Any) -> TextReply:
        given = prompt if isinstance(prompt, str) else tuple(prompt)
        task = generation_task(CompletionTask, {"prompt": given}, parameters)
        return text_reply(await self._collect(task))

    async def embed(self, inputs: str | Sequence[str]) -> EmbeddingReply:
        texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        return embedding_reply(await self._collect(EmbedTask(inputs=texts)))

    async def _collect(self, task: Task) -> list[Delta]:
        stream = self.stream(task)
        try:
            deltas = [delta async for delta in stream]
        finally:
            stream.cancel()
        if deltas and isinstance(deltas[-1], FinishDelta) and deltas[-1].reason == "cancelled":
            raise LeaseExpiredError(
                "the lease ended before the answer was complete; acquire the model again"
            )
        return deltas


def generation_task(
    kind: type[TaskT], subject: Mapping[str, Any], parameters: Mapping[str, Any]
) -> TaskT:
    """Return a task of *kind*; *parameters* are its own fields and those of ``Sampling``.

    Raises:
        InvalidRequestError: a parameter is unknown or of the wrong type.
    """
    sampling_fields = set(Sampling.__struct_fields__)
    task_fields = set(GenerationTask.__struct_fields__)
    for name in parameters:
        if name not in sampling_fields | task_fields:
            known = ", ".join(sorted(sampling_fields | task_fields - {"sampling"}))
            raise InvalidRequestError(f"unknown parameter {name!r}; known: {known}", param=name)
    fields = {name: value for name, value in parameters.items() if name in task_fields}
    sampling = {name: value for name, value in parameters.items() if name in sampling_fields}
    if isinstance(fields.get("stop"), str):
        fields["stop"] = (fields["stop"],)
    try:
        if sampling:
            given = msgspec.convert(fields.get("sampling", Sampling()), Sampling)
            fields["sampling"] = {**msgspec.to_builtins(given), **sampling}
        tag = kind.__struct_config__.tag
        return msgspec.convert({"type": tag, **subject, **fields}, kind)
    except msgspec.ValidationError as error:
        # msgspec ends with the place: "Expected `int`, got `str` - at `$.sampling.top_k`".
        place = str(error).partition("`$.")[2].rstrip("`")
        param = place.removeprefix("sampling.") or "sampling"
        raise InvalidRequestError(wrong_value(str(error), kind), param=param) from error


def text_reply(deltas: Sequence[Delta]) -> TextReply:
    """Return the whole answer that *deltas* make."""
    finish = _finish(deltas)
    return TextReply(
        text="".join(delta.text for delta in deltas if isinstance(delta, ContentDelta)),
        finish_reason=finish.reason,
        usage=finish.usage,
        timings=finish.timings,
    )


def embedding_reply(deltas: Sequence[Delta]) -> EmbeddingReply:
    """Return the vectors that *deltas* carry, in the order of the inputs."""
    found = sorted(
        (delta for delta in deltas if isinstance(delta, EmbeddingDelta)),
        key=lambda delta: delta.index,
    )
    vectors = tuple(_floats(delta.vector) for delta in found)
    return EmbeddingReply(vectors=vectors, usage=_finish(deltas).usage)


def _finish(deltas: Sequence[Delta]) -> FinishDelta:
    if not deltas or not isinstance(deltas[-1], FinishDelta):
        raise LLMRouterError("the engine ended the request without a result; please report this")
    return deltas[-1]


def _floats(vector: bytes) -> tuple[float, ...]:
    values = array.array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)
