"""One router and many event loops: none, one after another, several at once, in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from llm_router_mw import ChatTask, LLMRouterMiddleware, Router, RouterContract, get_router
from llm_router_mw.protocols import DeltaStream
from llm_router_mw.types import Delta, FinishDelta, Sampling
from tests.support.answers import chat_body
from tests.support.django_site import django_site
from tests.support.real_router import HELLO, real_router, text_of

TASK = ChatTask(messages=tuple(HELLO), max_tokens=12, sampling=Sampling(temperature=0.0))
OPTIONS: dict[str, Any] = {"n_threads": 1, "n_ctx": 512, "n_parallel": 2, "models_memory_margin": 0}
BACKENDS = ["asyncio", "trio"]
THREADS = 4


async def talk(router: RouterContract, model: str = "a") -> str:
    """Return what *model* answers to the task of these tests."""
    async with router.acquire(model) as llm:
        return text_of([delta async for delta in llm.stream(TASK)])


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await talk(get_router(request), request.path_params["model"]))


class Door:
    """A door around an app of its own whose server, if there is one at all, sends no lifespan."""

    def __init__(self, app: Any, models_dir: Path) -> None:
        self.app = LLMRouterMiddleware(app, models_dir=str(models_dir), **OPTIONS)
        self.body = {**chat_body("a"), "max_tokens": 12}

    @property
    def loads(self) -> int:
        """How many models are loaded, of those that were asked for."""
        return sum(view.status == "loaded" for view in self.app.router.models())


@pytest.fixture
def door(letters: Path) -> Iterator[Door]:
    made = Door(Starlette(routes=[Route("/own/{model}", page)]), letters)
    yield made
    made.app.thread.stop()
    assert not made.app.router.running


# No lifespan


@pytest.mark.asyncio
async def test_a_bare_transport_is_enough(door: Door) -> None:
    transport = httpx.ASGITransport(door.app)
    answers: dict[str, list[httpx.Response]] = {"own": [], "streamed": [], "whole": []}
    async with httpx.AsyncClient(transport=transport, base_url="http://app", timeout=40) as http:

        async def ask(kind: str) -> None:
            if kind == "own":
                answers[kind].append(await http.get("/own/b"))
            else:
                body = {**door.body, "stream": kind == "streamed"}
                answers[kind].append(await http.post("/v1/chat/completions", json=body))

        async with anyio.create_task_group() as tasks:
            for kind in [*answers] * 2:
                tasks.start_soon(ask, kind)
    assert all(each.text.endswith("data: [DONE]\n\n") for each in answers["streamed"])
    assert len({each.json()["choices"][0]["message"]["content"] for each in answers["whole"]}) == 1
    assert len({each.text for each in answers["own"]}) == 1
    assert door.loads == 2


def test_each_request_may_have_a_loop_and_a_thread_of_its_own(door: Door) -> None:
    def visit(number: int) -> str:
        # Not entered, a test client runs a loop for each request and sends no lifespan.
        client = TestClient(door.app)
        if number % 2:
            return client.get("/own/a").text
        answer = client.post("/v1/chat/completions", json=door.body)
        assert answer.status_code == 200, answer.text
        return "answered"

    with ThreadPoolExecutor(THREADS) as pool:
        texts = list(pool.map(visit, range(2 * THREADS)))
    assert set(texts) == {"answered", texts[1]}
    assert door.loads == 1


# Sync code, by way of asgiref


def in_threads(count: int, call: Callable[[], str]) -> list[str]:
    """Return what *call* returns in *count* threads at once."""
    together = threading.Barrier(count)

    def run(_: int) -> str:
        together.wait(10)
        return call()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.mark.asyncio
async def test_sync_code_goes_through_async_to_sync_in_many_threads(letters: Path) -> None:
    async with real_router(models_dir=str(letters)) as router:
        expected = await talk(router)

        def view() -> str:
            return async_to_sync(talk)(router)

        texts = await anyio.to_thread.run_sync(in_threads, THREADS, view)
        assert texts == [expected] * THREADS
        assert not any(each.leases for each in router.models())


@pytest.mark.asyncio
async def test_a_lease_and_its_stream_outlive_the_loops_that_use_them(letters: Path) -> None:
    """Each call of async_to_sync has a new loop; what was begun on one is read on another."""

    async def next_of(stream: DeltaStream) -> Delta:
        return await anext(stream)

    async with real_router(models_dir=str(letters)) as router:
        expected = await talk(router)

        def view() -> str:
            lease = async_to_sync(router.lease)("a")
            stream = lease.stream(TASK)
            deltas: list[Delta] = []
            while not deltas or not isinstance(deltas[-1], FinishDelta):
                deltas.append(async_to_sync(next_of)(stream))
            lease.release()
            return text_of(deltas)

        assert await anyio.to_thread.run_sync(in_threads, 2, view) == [expected] * 2


def sync_view(request: Any, model: str) -> HttpResponse:
    """A view of Django that is not async; several run at once, each in a thread."""
    return HttpResponse(async_to_sync(talk)(get_router(request), model))


async def async_view(request: Any, model: str) -> HttpResponse:
    return HttpResponse(await talk(get_router(request), model))


@pytest.fixture
def django_app() -> Iterator[ASGIHandler]:
    with django_site(path("sync/<model>", sync_view), path("async/<model>", async_view)) as app:
        yield app


@pytest.mark.asyncio
@pytest.mark.parametrize("home", ["the server's loop", "a thread of its own"])
async def test_django_uses_it_from_views_of_both_kinds(
    django_app: ASGIHandler, letters: Path, home: str
) -> None:
    router = Router(models_dir=str(letters), **OPTIONS)
    door = LLMRouterMiddleware(django_app, router=router)
    texts: list[str] = []

    async def visit() -> None:
        transport = httpx.ASGITransport(door)
        async with httpx.AsyncClient(transport=transport, base_url="http://a", timeout=40) as http:

            async def ask(kind: str) -> None:
                answer = await http.get(f"/{kind}/a")
                assert answer.status_code == 200, answer.text
                texts.append(answer.text)

            async with anyio.create_task_group() as tasks:
                for kind in ("sync", "async") * THREADS:
                    tasks.start_soon(ask, kind)

    if home == "the server's loop":
        async with router:
            await visit()
    else:
        await visit()
        await anyio.to_thread.run_sync(door.thread.stop)
    assert len(texts) == 2 * THREADS
    assert len(set(texts)) == 1
    assert not router.running


# Several loops at once


@pytest.mark.parametrize("home", BACKENDS)
def test_loops_of_both_kinds_use_it_at_once(letters: Path, home: str) -> None:
    texts: list[str] = []

    async def visit(router: RouterContract) -> None:
        """Do all that an app does, here and now."""

        async def leave_early() -> None:
            async with router.acquire("b") as llm:
                stream = llm.stream(TASK)
                await anext(stream)
                stream.cancel()

        async def listen() -> None:
            async with router.events() as events:
                assert (await anext(aiter(events))).kind == "snapshot"

        async def say() -> None:
            texts.append(await talk(router))

        async with anyio.create_task_group() as tasks:
            for call in (say, leave_early, listen, say):
                tasks.start_soon(call)
        assert [view.id for view in router.models()] == ["a", "b", "c", "d"]

    async def scene() -> None:
        async with real_router(models_dir=str(letters), **OPTIONS) as router:

            def elsewhere(backend: str) -> None:
                anyio.run(visit, router, backend=backend)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(visit, router)
                for backend in BACKENDS:
                    tasks.start_soon(anyio.to_thread.run_sync, elsewhere, backend)
            assert not any(view.leases or view.waiting for view in router.models())

    anyio.run(scene, backend=home)
    assert len(texts) == 2 * (1 + len(BACKENDS))
    assert len(set(texts)) == 1
