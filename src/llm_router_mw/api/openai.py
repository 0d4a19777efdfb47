"""OpenAI's dialect: chat completions and completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import msgspec

from llm_router_mw.api.body import decode, refuse_unsupported
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.generation import answering, deltas
from llm_router_mw.api.messages import Message, conversation
from llm_router_mw.api.openai_shapes import ChatShape, CompletionShape
from llm_router_mw.api.parameters import GenerationRequest, model_name
from llm_router_mw.api.prompts import single_prompt
from llm_router_mw.api.settings import APISettings
from llm_router_mw.api.sse import DONE, EventStream
from llm_router_mw.protocols import DeltaStream, RouterContract
from llm_router_mw.types import ChatTask, CompletionTask, ContentDelta, FinishDelta

RequestT = TypeVar("RequestT", bound=GenerationRequest)


class ChatCompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of ``POST /v1/chat/completions``."""

    messages: list[Message] = []

    def task(self) -> ChatTask:
        """Return the task. Raises InvalidRequestError if a field is out of range."""
        return ChatTask(
            messages=conversation(self.messages),
            sampling=self.sampling(),
            max_tokens=self.token_limit(),
            stop=self.stops(),
        )


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """Body of ``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]] | None = None

    def task(self) -> CompletionTask:
        """Return the task. Raises InvalidRequestError if a field is out of range."""
        return CompletionTask(
            prompt=single_prompt(self.prompt),
            sampling=self.sampling(),
            max_tokens=self.token_limit(),
            stop=self.stops(),
        )


_chat_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_completion_decoder = msgspec.json.Decoder(CompletionRequest)


async def chat_completions(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``POST /v1/chat/completions``."""
    request = await _read(connection, settings, _chat_decoder)
    model = model_name(request.model)
    await _answer(connection, router, settings, request, request.task(), ChatShape(model))


async def completions(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``POST /v1/completions``."""
    request = await _read(connection, settings, _completion_decoder)
    model = model_name(request.model)
    await _answer(connection, router, settings, request, request.task(), CompletionShape(model))


async def _read(
    connection: Connection, settings: APISettings, decoder: msgspec.json.Decoder[RequestT]
) -> RequestT:
    data = await connection.body(settings.max_body_bytes)
    request = decode(data, decoder)
    refuse_unsupported(data)
    return request


async def _answer(
    connection: Connection,
    router: RouterContract,
    settings: APISettings,
    request: GenerationRequest,
    task: ChatTask | CompletionTask,
    shape: CompletionShape,
) -> None:
    async def work() -> None:
        async with answering(connection, router, model_name(request.model), task) as stream:
            if request.stream:
                chunks = _chunks(stream, shape, request.include_usage)
                await EventStream(connection, settings).run(chunks)
                return
            text, finish = await _collect(stream)
        await connection.json(shape.whole(text, finish))

    await connection.while_connected(work)


async def _collect(stream: DeltaStream) -> tuple[str, FinishDelta]:
    pieces: list[str] = []
    async for delta in deltas(stream):
        if isinstance(delta, ContentDelta):
            pieces.append(delta.text)
        elif isinstance(delta, FinishDelta):
            finish = delta
    return "".join(pieces), finish


async def _chunks(
    stream: DeltaStream, shape: CompletionShape, include_usage: bool
) -> AsyncGenerator[bytes]:
    pending = shape.opening()
    async with aclosing(deltas(stream)) as items:
        async for delta in items:
            if isinstance(delta, ContentDelta):
                yield pending + shape.piece(delta.text)
                pending = b""
            elif isinstance(delta, FinishDelta):
                yield pending + shape.closing(delta, include_usage) + DONE
