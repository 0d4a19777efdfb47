"""The routes, and what answers them."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

import llm_router_mw
from llm_router_mw.api.connection import ClientDisconnectedError, alongside
from llm_router_mw.api.keep_alive import FOREVER
from llm_router_mw.api.problem import problem_headers
from llm_router_mw.errors import (
    LLMRouterError,
    ModelNotFoundError,
    ModelNotLoadedError,
    PermissionDeniedError,
)
from llm_router_mw.protocols import Access, LeaseContract, RouterContract
from llm_router_mw.types import (
    ContentDelta,
    EmbeddingDelta,
    EmbedTask,
    FinishDelta,
    InstanceState,
    ModelView,
    Task,
    Usage,
)
from llm_router_mw_ollama import shapes
from llm_router_mw_ollama.names import LATEST
from llm_router_mw_ollama.requests import (
    ChatBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    GenerationBody,
    ModelBody,
    decoded,
)

Content = Callable[[str], dict[str, Any]]
"""Puts text where the kind of answer has it."""
Handler = Callable[[Request], Any]
_FLOAT32_BYTES = 4


class OllamaRoutes:
    """A group of routes."""

    name = "ollama"
    access: Access = "inference"

    def __init__(self) -> None:
        self.routes: list[BaseRoute] = [
            Route("/api/chat", _told(chat), methods=["POST"]),
            Route("/api/generate", _told(generate), methods=["POST"]),
            Route("/api/embed", _told(embed), methods=["POST"]),
            Route("/api/embeddings", _told(embeddings), methods=["POST"]),
            Route("/api/show", _told(show), methods=["POST"]),
            Route("/api/tags", _told(tags)),
            Route("/api/ps", _told(ps)),
            Route("/api/version", _told(version)),
        ]


async def chat(request: Request) -> Response:
    """``POST /api/chat``."""
    body = decoded(await request.body(), ChatBody)

    def content(text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    return await _generation(request, body, body.task(_owner(request)), content)


async def generate(request: Request) -> Response:
    """``POST /api/generate``."""
    body = decoded(await request.body(), GenerateBody)
    task = body.task(_owner(request))
    return await _generation(request, body, task, lambda text: {"response": text})


async def embed(request: Request) -> Response:
    """``POST /api/embed``."""
    began = time.perf_counter()
    body = decoded(await request.body(), EmbedBody)
    async with _acquired(request, body) as llm:
        load = time.perf_counter() - began
        vectors, used = await _embedded(llm, body.task())
    return JSONResponse(
        {
            "model": body.model,
            "embeddings": vectors,
            "total_duration": shapes.nanoseconds(time.perf_counter() - began),
            "load_duration": shapes.nanoseconds(load),
            "prompt_eval_count": used.prompt_tokens,
        }
    )


async def embeddings(request: Request) -> Response:
    """``POST /api/embeddings``."""
    body = decoded(await request.body(), EmbeddingsBody)
    async with _acquired(request, body) as llm:
        vectors, _ = await _embedded(llm, EmbedTask(inputs=(body.prompt,)))
    return JSONResponse({"embedding": vectors[0]})


async def tags(request: Request) -> Response:
    """``GET /api/tags``."""
    views = _router(request).models()
    found = await anyio.to_thread.run_sync(lambda: [shapes.tag(view) for view in views])
    return JSONResponse({"models": found})


async def ps(request: Request) -> Response:
    """``GET /api/ps``."""
    views = [view for view in _router(request).models() if shapes.is_resident(view)]
    now = datetime.now(UTC)
    found = await anyio.to_thread.run_sync(lambda: [shapes.running(view, now) for view in views])
    return JSONResponse({"models": found})


async def show(request: Request) -> Response:
    """``POST /api/show``."""
    body = decoded(await request.body(), ModelBody)
    view = _view(_router(request), body.model)
    info = view.info
    pooled = bool(view.model.options.pooling)
    return JSONResponse(
        {
            "modelfile": "",
            "parameters": "",
            "template": view.model.options.chat_template,
            "details": shapes.details(view),
            "model_info": {}
            if info is None
            else {
                "general.parameter_count": info.n_params,
                "general.context_length": info.n_ctx_train,
            },
            "capabilities": ["embedding"] if pooled else ["completion"],
        }
    )


async def version(request: Request) -> Response:
    """``GET /api/version``."""
    return JSONResponse({"version": llm_router_mw.__version__})


async def _embedded(llm: LeaseContract, task: EmbedTask) -> tuple[list[list[float]], Usage]:
    vectors: list[list[float]] = [[]] * len(task.inputs)
    used = Usage()
    stream = llm.stream(task)
    try:
        async for delta in stream:
            if isinstance(delta, EmbeddingDelta):
                count = len(delta.vector) // _FLOAT32_BYTES
                vectors[delta.index] = list(struct.unpack(f"<{count}f", delta.vector))
            elif isinstance(delta, FinishDelta):
                used = delta.usage
    finally:
        stream.cancel()
    return vectors, used


async def _generation(
    request: Request, body: GenerationBody, task: Task | None, content: Content
) -> Response:
    if task is None:
        return await _without_task(request, body, content)
    lines = _lines(request, body, task, content)
    if not body.stream:
        return JSONResponse(await _whole(lines, content))
    # The model is waited for before the status is sent: what goes wrong until then has one.
    first = await anext(lines)
    return StreamingResponse(_ndjson(first, lines, body.model), media_type="application/x-ndjson")


async def _without_task(request: Request, body: GenerationBody, content: Content) -> Response:
    if body.keep_alive_seconds == 0:
        await _release(request, body)
        return JSONResponse(shapes.nothing_done(body.model, content(""), "unload"))
    async with _acquired(request, body):
        return JSONResponse(shapes.nothing_done(body.model, content(""), "load"))


async def _release(request: Request, body: GenerationBody) -> None:
    """Let the model go: at once for a manager, as after any request of theirs for others."""
    if request.scope["llm_router_manager"]:
        await _router(request).unload(body.model, wait=False)
    elif _view(_router(request), body.model).state is InstanceState.LOADED:
        with suppress(ModelNotLoadedError):  # it has gone by itself meanwhile
            async with _acquired(request, body, autoload=False):
                pass


async def _lines(
    request: Request, body: GenerationBody, task: Task, content: Content
) -> AsyncIterator[dict[str, Any]]:
    began = time.perf_counter()
    async with _acquired(request, body) as llm:
        load = time.perf_counter() - began
        # However long the client takes to read: others may have the model when it is done.
        stream = llm.stream(task, release=True)
        try:
            async for delta in stream:
                if isinstance(delta, ContentDelta):
                    yield shapes.piece(body.model, content(delta.text))
                elif isinstance(delta, FinishDelta):
                    total = time.perf_counter() - began
                    yield shapes.end(body.model, content(""), delta, total, load)
        finally:
            stream.cancel()


async def _whole(lines: AsyncIterator[dict[str, Any]], content: Content) -> dict[str, Any]:
    texts: list[str] = []
    last: dict[str, Any] = {}
    async for line in lines:
        last = line
        message = line.get("message")
        texts.append(message["content"] if message is not None else line["response"])
    return last | content("".join(texts))


async def _ndjson(
    first: dict[str, Any], lines: AsyncIterator[dict[str, Any]], model: str
) -> AsyncIterator[bytes]:
    yield json.dumps(first).encode() + b"\n"
    try:
        async for line in lines:
            yield json.dumps(line).encode() + b"\n"
    except LLMRouterError as error:  # too late for a status
        yield json.dumps({"error": error.message}).encode() + b"\n"


def _told(handler: Handler) -> Handler:
    """Answer the errors of *handler* as Ollama's clients read them; give up if one leaves."""

    async def answer(request: Request) -> Response:
        async def left() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            raise ClientDisconnectedError

        try:
            await request.body()  # kept by the request: what comes after it is the client's end
            response: Response = await alongside(left, lambda: handler(request))
        except LLMRouterError as error:
            headers = {name.decode(): value.decode() for name, value in problem_headers(error)}
            return JSONResponse({"error": error.message}, error.status, headers)
        return response

    return answer


def _acquired(
    request: Request, body: ModelBody, *, autoload: bool | None = None
) -> AbstractAsyncContextManager[LeaseContract]:
    keep_alive = body.keep_alive_seconds
    if keep_alive == FOREVER and not request.scope["llm_router_manager"]:
        raise PermissionDeniedError(
            "keep_alive: keeping a model for ever needs an admin key; give a time like '5m'",
            param="keep_alive",
        )
    return _router(request).acquire(
        body.model, keep_alive_seconds=keep_alive, autoload=autoload, owner=_owner(request)
    )


def _view(router: RouterContract, name: str) -> ModelView:
    plain = name.removesuffix(LATEST)
    for view in router.models():
        if {name, plain} & {view.id, *view.model.aliases}:
            return view
    raise ModelNotFoundError(f"model {name[:100]!r} not found", param="model")


def _router(request: Request) -> RouterContract:
    router: RouterContract = request.scope["llm_router"]
    return router


def _owner(request: Request) -> str:
    owner: str = request.scope["llm_router_owner"]
    return owner
