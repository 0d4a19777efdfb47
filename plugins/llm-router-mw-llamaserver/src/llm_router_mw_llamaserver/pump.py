"""Carries one answer from a server to its reader, no faster than the reader takes it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
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
    Task,
)
from llm_router_mw.wire import INITIAL_CREDIT, Cancel, Credit
from llm_router_mw_llamaserver import answers, bodies
from llm_router_mw_llamaserver.server import Server

_LAST_WORDS_SECONDS = 2.0
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
            async for delta in self._answer():
                if not isinstance(delta, FinishDelta):
                    await self._room()
                stream.feed(delta)
            stream.fail(WireError("llama-server did not finish its answer; ask again"))
        except LLMRouterError as error:
            stream.fail(error)
        except httpx.ReadTimeout:
            self._server.kill()
            seconds = f"{self._stuck_seconds:g} s"
            stream.fail(WorkerDiedError(f"llama-server gave no sign of life for {seconds}; ask again"))
        except httpx.TransportError as error:
            # If it broke with the process, the instance says so better.
            with anyio.move_on_after(_LAST_WORDS_SECONDS):
                await self._server.gone.wait()
                await anyio.lowlevel.checkpoint()
            stream.fail(WorkerDiedError(f"llama-server broke its answer off ({error!r}); ask again"))
        except (ValueError, KeyError, TypeError) as error:
            stream.fail(WireError(f"llama-server's answer cannot be understood: {error!r}"))

    async def _room(self) -> None:
        while self._credit == 0:
            self._more = anyio.Event()
            await self._more.wait()
        self._credit -= 1

    def _answer(self) -> AsyncIterator[Delta]:
        task = self._task
        if isinstance(task, ChatTask | CompletionTask):
            return self._generated(task)
        return self._computed()

    async def _generated(self, task: ChatTask | CompletionTask) -> AsyncIterator[Delta]:
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
            async for delta in self._completion.deltas(answer.aiter_lines()):
                yield delta

    async def _computed(self) -> AsyncIterator[Delta]:
        task = self._task
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
