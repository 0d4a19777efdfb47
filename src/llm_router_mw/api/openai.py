"""OpenAI's dialect: chat completions and completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta

from llm_router_mw.api.auth import cache_namespace
from llm_router_mw.api.body import MAX_ITEMS, decode, refuse_unsupported, understand
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.demand import demand_of, model_name
from llm_router_mw.api.generation import Answers, answering_often
from llm_router_mw.api.logprobs import MAX_TOP_LOGPROBS, LogprobStyle
from llm_router_mw.api.messages import Message, conversation
from llm_router_mw.api.openai_shapes import ChatShape, Choice, CompletionShape
from llm_router_mw.api.parameters import GenerationRequest
from llm_router_mw.api.prompts import single_prompt
from llm_router_mw.api.settings import APISettings
from llm_router_mw.api.sse import DONE, EventStream
from llm_router_mw.api.waiting import Waiting
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.protocols import RouterContract
from llm_router_mw.sampling_limits import check_limit
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    FinishDelta,
    ModelInfo,
    ProgressDelta,
)

_MAX_WHOLE_PROBS = 250_000
"""Probabilities in an answer that is not streamed; each takes some hundred bytes."""


class ChatCompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Meta(max_length=MAX_ITEMS)] = []
    logprobs: bool | None = None
    top_logprobs: int | None = None

    def logprob_style(self) -> LogprobStyle | None:
        """As its base; OpenAI has a switch and a number."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequestError(
                "top_logprobs requires logprobs to be set to true", param="top_logprobs"
            )
        check_limit("top_logprobs", self.top_logprobs or 0, 0, MAX_TOP_LOGPROBS)
        if not self.logprobs:
            return super().logprob_style()
        return LogprobStyle(self.top_logprobs or self.n_probs or 0, bool(self.post_sampling_probs))

    @property
    def probs_field(self) -> str:
        """As its base."""
        return "top_logprobs" if self.top_logprobs else super().probs_field

    def task(self) -> ChatTask:
        """Return the task. Raises InvalidRequestError if a field is out of range."""
        return ChatTask(messages=conversation(self.messages), **self.task_fields())


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of ``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]] | None = None
    logprobs: int | bool | None = None

    def logprob_style(self) -> LogprobStyle | None:
        """As its base; OpenAI has a number, of which 0 asks for the chosen tokens alone."""
        if self.logprobs is None or self.logprobs is False:
            return super().logprob_style()
        if self.logprobs is True:
            raise InvalidRequestError(
                f"logprobs must be a number from 0 to {MAX_TOP_LOGPROBS} here", param="logprobs"
            )
        check_limit("logprobs", self.logprobs, 0, MAX_TOP_LOGPROBS)
        return LogprobStyle(self.logprobs, bool(self.post_sampling_probs))

    def task(self) -> CompletionTask:
        """Return the task. Raises InvalidRequestError if a field is out of range."""
        return CompletionTask(prompt=single_prompt(self.prompt), **self.task_fields())


_chat_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_completion_decoder = msgspec.json.Decoder(CompletionRequest)


async def chat_completions(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``POST /v1/chat/completions``."""
    data = await connection.body(settings.max_body_bytes)
    request, task, shape = await understand(data, _read_chat)
    await _answer(connection, router, settings, request, task, shape)


async def completions(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``POST /v1/completions``."""
    data = await connection.body(settings.max_body_bytes)
    request, task, shape = await understand(data, _read_completion)
    await _answer(connection, router, settings, request, task, shape)


def _read_chat(data: bytes) -> tuple[GenerationRequest, ChatTask, CompletionShape]:
    request = decode(data, _chat_decoder)
    refuse_unsupported(data)
    model = model_name(request.model)
    shape = ChatShape(model, request.choices(), request.logprob_style())
    return request, request.task(), shape


def _read_completion(data: bytes) -> tuple[GenerationRequest, CompletionTask, CompletionShape]:
    request = decode(data, _completion_decoder)
    refuse_unsupported(data)
    model = model_name(request.model)
    shape = CompletionShape(model, request.choices(), request.logprob_style())
    return request, request.task(), shape


async def _answer(
    connection: Connection,
    router: RouterContract,
    settings: APISettings,
    request: GenerationRequest,
    task: ChatTask | CompletionTask,
    shape: CompletionShape,
) -> None:
    namespace = cache_namespace(connection.scope, settings)
    task = msgspec.structs.replace(task, cache_namespace=namespace)

    waiting = Waiting(connection, demand_of(request, connection, settings))
    check = partial(_check_probs, request, task, shape.count)
    events = EventStream(connection, settings, waiting)

    async def answer() -> None:
        async with answering_often(router, waiting, task, shape.count, check) as answers:
            if request.stream:
                await events.send(_chunks(answers, shape, request))
                return
            with _fields_named_as_in(request):
                choices = await _collect(answers, shape.count)
        await connection.json(shape.whole(choices))

    async def work() -> None:
        await (events.around(answer) if request.stream else answer())

    await connection.while_connected(work)


def _check_probs(
    request: GenerationRequest, task: ChatTask | CompletionTask, count: int, info: ModelInfo
) -> None:
    """Refuse a whole answer whose probabilities would fill this process's memory."""
    n_probs = task.sampling.n_probs
    if request.stream or not n_probs:
        return
    n_entries = count * (n_probs + 1) * (task.max_tokens or info.n_ctx)
    if n_entries > _MAX_WHOLE_PROBS:
        name = request.probs_field
        raise InvalidRequestError(
            f"{name} asks for up to {n_entries} probabilities in one answer; at most "
            f"{_MAX_WHOLE_PROBS} are given, so stream it, or ask for fewer of them or a smaller "
            "max_tokens",
            param=name,
        )


@contextmanager
def _fields_named_as_in(request: GenerationRequest) -> Iterator[None]:
    """Let errors of the worker name the field that gave the schema by its name in *request*."""
    try:
        yield
    except InvalidRequestError as error:
        if error.param != "json_schema":
            raise
        name = request.schema_field
        message = error.message.replace("'json_schema'", repr(name), 1)
        raise InvalidRequestError(message, param=name) from error


async def _collect(answers: Answers, count: int) -> list[Choice]:
    """Return all that came of each choice."""
    pieces: list[list[ContentDelta]] = [[] for _ in range(count)]
    finishes: dict[int, FinishDelta] = {}
    async for number, delta in answers:
        if isinstance(delta, ContentDelta):
            pieces[number].append(delta)
        elif isinstance(delta, FinishDelta):
            finishes[number] = delta
    return [Choice(tuple(pieces[number]), finishes[number]) for number in range(count)]


async def _chunks(
    answers: Answers, shape: CompletionShape, request: GenerationRequest
) -> AsyncGenerator[bytes]:
    pending = shape.opening()
    finishes: list[FinishDelta] = []
    with _fields_named_as_in(request):
        async with aclosing(answers):
            async for number, delta in answers:
                if isinstance(delta, ContentDelta):
                    yield pending + shape.piece(delta, number)
                    pending = b""
                elif isinstance(delta, ProgressDelta):
                    yield pending + shape.progress(delta, number)
                    pending = b""
                elif isinstance(delta, FinishDelta):
                    finishes.append(delta)
                    if len(finishes) < shape.count:
                        yield pending + shape.end(delta, number)
                    else:
                        closing = shape.closing(finishes, number, request.include_usage)
                        yield pending + closing + DONE
                    pending = b""
