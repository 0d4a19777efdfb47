"""Carries one answer from a server to its reader, no faster than the reader takes it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import anyio
import httpx

from llm_router_mw.errors import (
    LLMRouterError,
    ModelUnloadedError,
    WireError,
    WorkerDiedError,
)
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    Delta,
    EmbedTask,
    FinishDelta,
    LoadOptions,
    RerankTask,
    Task,
)
from llm_router_mw.wire import INITIAL_CREDIT, Cancel, Credit
from llm_router_mw_llamaserver import answers, bodies
from llm_router_mw_llamaserver.server import Server

_LAST_WORDS_SECONDS = 1.0
"""From a broken connection to the end of the process that broke it, at most."""


class Pump:
    """One request at one server; runs in a task of the engine."""

    def __init__(self, server: Server, task: Task, options: LoadOptions, stuck_seconds: float):
        self._server = server
        self._task = task
        self._options = options
        self._stuck_seconds = stuck_seconds
        self._scope = anyio.CancelScope()
        self._credit = INITIAL_CREDIT
        self._more = anyio.Event()
        self._completion = answers.Completion()

    def told(self, message: Credit | Cancel) -> None:
        """Take what the reader's end says."""
        if isinstance(message, Cancel):
            self._scope.cancel()
        else:
            self._credit += message.amount
            self._more.set()

    async def run(self, stream: RequestStream) -> None:
        """Feed *stream* until the request is over; leaving closes the connection."""
        try:
            with self._scope:
                await self._feed(stream)
            if self._scope.cancelled_caught:
                stream.feed(FinishDelta("cancelled", self._completion.usage))
        finally:
            # Only where the engine itself is left: else it has ended.
            stream.fail(ModelUnloadedError("the engine has been closed"))

    async def _feed(self, stream: RequestStream) -> None:
        try:
            async with aclosing(self._answer()) as deltas:
                async for delta in deltas:
                    if not isinstance(delta, FinishDelta):
                        await self._room()
                    stream.feed(delta)
            if not stream.finished:
                await self._broken_off(stream, "it has no end")
        except LLMRouterError as error:
            stream.fail(error)
        except httpx.ReadTimeout:
            self._server.expel(f"was stuck (it said nothing for {self._stuck_seconds:g} s)")
            await self._server.gone.wait()  # and with it all requests
        except httpx.TransportError as error:
            await self._broken_off(stream, repr(error))
        except Exception as error:  # a surprise in one answer must not be the end of all others
            stream.fail(WireError(f"llama-server could not be understood: {error!r}"))

    async def _broken_off(self, stream: RequestStream, how: str) -> None:
        # If it broke with the process, the instance says so better.
        with anyio.move_on_after(_LAST_WORDS_SECONDS):
            await self._server.gone.wait()
        stream.fail(WorkerDiedError(f"llama-server broke its answer off ({how}); ask again"))

    async def _room(self) -> None:
        while self._credit == 0:
            self._more = anyio.Event()
            await self._more.wait()
        self._credit -= 1

    def _answer(self) -> AsyncGenerator[Delta, None]:
        task = self._task
        if isinstance(task, ChatTask | CompletionTask):
            return self._generated(task)
        return self._computed(task)

    async def _generated(self, task: ChatTask | CompletionTask) -> AsyncGenerator[Delta, None]:
        if isinstance(task, ChatTask):
            templated = await self._post("/apply-template", {"messages": task.messages})
            prompt = templated["prompt"]
        else:
            prompt = task.prompt
        body = bodies.completion(task, prompt, self._options)
        # It sends comments while it computes, so silence means that it is stuck.
        timeout = httpx.Timeout(None, read=self._stuck_seconds)
        async with self._server.http.stream(
            "POST", "/completion", json=body, timeout=timeout
        ) as answer:
            await _check(answer)
            async for line in answer.aiter_lines():
                for delta in self._completion.read(line):
                    yield delta

    async def _computed(self, task: EmbedTask | RerankTask) -> AsyncGenerator[Delta, None]:
        deltas: Iterator[Delta]
        if isinstance(task, EmbedTask):
            answer = await self._post("/v1/embeddings", bodies.embedding(task))
            deltas = answers.embeddings(answer, task.dimensions)
        else:
            deltas = answers.scores(await self._post("/v1/rerank", bodies.reranking(task)))
        for delta in deltas:
            yield delta

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = await self._server.http.post(path, json=body)
        await _check(answer)
        return answer.json()


async def _check(answer: httpx.Response) -> None:
    """Raise the error that *answer* tells of, if it does."""
    if answer.is_success:
        return
    text = await answer.aread()
    try:
        raise answers.error_of(json.loads(text))
    except (ValueError, KeyError, TypeError):
        raise LLMRouterError(f"llama-server answered {answer.status_code}") from None
