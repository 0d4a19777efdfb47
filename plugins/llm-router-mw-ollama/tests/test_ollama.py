"""Ollama's own client talks to a router, and finds what it expects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import msgspec
import ollama
import pytest

from llm_router_mw import LLMRouterApp, Router
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.testing import FakeEngine
from llm_router_mw.types import InstanceState
from llm_router_mw_ollama.requests import ChatBody, GenerateBody, decoded

pytestmark = pytest.mark.asyncio

MakeRouter = Callable[..., Router]
HELLO = [{"role": "user", "content": "hello"}]
FROM_LOOPBACK: dict[str, Any] = {"authorize": lambda scope: True}


@asynccontextmanager
async def served(router: Router, **settings: Any) -> AsyncIterator[ollama.AsyncClient]:
    app = LLMRouterApp(router=router, routes=["inference", "ollama"], **settings)
    async with router:
        yield ollama.AsyncClient(host="http://test", transport=httpx.ASGITransport(app))


async def test_a_chat_is_streamed(make_llm_router: MakeRouter) -> None:
    async with served(make_llm_router()) as client:
        parts = [part async for part in await client.chat("a", HELLO, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "echo: hello"
    assert [part.done for part in parts] == [False, False, True]
    assert parts[-1].done_reason == "stop"
    assert (parts[-1].prompt_eval_count, parts[-1].eval_count) == (1, 2)
    assert parts[-1].total_duration is not None
    assert parts[-1].total_duration > 0


async def test_a_chat_can_be_had_whole(make_llm_router: MakeRouter) -> None:
    async with served(make_llm_router()) as client:
        reply = await client.chat("a", HELLO)
    assert reply.message.content == "echo: hello"
    assert reply.done


@pytest.mark.parametrize("raw", [True, False])
async def test_a_prompt_is_continued(raw: bool, make_llm_router: MakeRouter) -> None:
    async with served(make_llm_router()) as client:
        reply = await client.generate("a", "once", raw=raw)
        parts = [part async for part in await client.generate("a", "once", raw=raw, stream=True)]
    assert reply.response == "echo: once"
    assert "".join(part.response for part in parts) == "echo: once"


async def test_texts_are_embedded(make_llm_router: MakeRouter) -> None:
    async with served(make_llm_router()) as client:
        reply = await client.embed("a", ["one", "two"])
        old = await client.embeddings("a", "one")
    assert [list(vector) for vector in reply.embeddings] == [[1.0, 0.0], [1.0, 0.0]]
    assert list(old.embedding) == [1.0, 0.0]


async def test_models_are_listed_and_none_is_woken(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    async with served(make_llm_router()) as client:
        listed = await client.list()
        nothing = await client.ps()
        await client.chat("a", HELLO)
        [running] = (await client.ps()).models
        shown = await client.show("b")
    assert [each.model for each in listed.models] == ["a", "b", "c"]
    assert all((each.size or 0) > 0 for each in listed.models)
    assert len({each.digest for each in listed.models}) == 3
    assert nothing.models == []
    assert running.model == "a"
    assert shown.details is not None
    assert shown.details.format == "gguf"
    assert llm_router_engine.loads == ["a"]


async def test_a_name_may_end_in_latest(make_llm_router: MakeRouter) -> None:
    async with served(make_llm_router()) as client:
        assert (await client.chat("a:latest", HELLO)).message.content == "echo: hello"
        await client.show("a:latest")
        with pytest.raises(ollama.ResponseError) as caught:
            await client.chat("a:7b", HELLO)
    assert caught.value.status_code == 404


async def test_a_model_is_loaded_and_released_without_a_message(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    router = make_llm_router()
    async with served(router) as client:
        assert (await client.generate("a")).done_reason == "load"
        assert llm_router_engine.loads == ["a"]
        assert (await client.generate("a", keep_alive=0)).done_reason == "unload"
        assert (await client.chat("b", [], keep_alive="5m")).done_reason == "load"


async def a_is(router: Router, wanted: InstanceState) -> None:
    """Return once the state of model a is as *wanted*."""
    with anyio.fail_after(5):
        async with router.events() as events:
            async for _ in events:
                if router.models()[0].state is wanted:
                    return


async def test_who_is_no_manager_cannot_take_a_model_from_others(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    router = make_llm_router()
    async with served(router) as client:
        await client.generate("a", keep_alive=0)  # not loaded: nothing to release, and no load
        assert llm_router_engine.loads == []
        async with router.acquire("a"):
            assert (await client.generate("a", keep_alive=0)).done_reason == "unload"
            assert router.models()[0].state is InstanceState.LOADED
        await client.generate("a", keep_alive=0)
        await a_is(router, InstanceState.UNLOADED)
    async with served(router, **FROM_LOOPBACK) as client:
        async with router.acquire("a"):
            assert (await client.generate("a", keep_alive=0)).done_reason == "unload"
            assert router.models()[0].state is InstanceState.DRAINING
        await a_is(router, InstanceState.UNLOADED)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_is_not_worked_for(
    stream: bool, make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    llm_router_engine.hold = True  # it never answers
    router = make_llm_router()
    app = LLMRouterApp(router=router, routes=["ollama"])
    body = msgspec.json.encode({"model": "a", "messages": HELLO, "stream": stream})
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await at_work.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pytest.fail(f"somebody is told {message}")

    async def watch() -> None:
        async with router.events() as events:
            async for _ in events:
                if router.models()[0].leases:
                    break
        at_work.set()

    at_work = anyio.Event()
    scope = {"type": "http", "method": "POST", "path": "/api/chat", "headers": []}
    async with router:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch)
                await app(scope, receive, send)
        assert router.models()[0].leases == 0


async def test_keeping_a_model_for_ever_is_for_managers(make_llm_router: MakeRouter) -> None:
    async with served(make_llm_router()) as client:
        with pytest.raises(ollama.ResponseError) as caught:
            await client.chat("a", HELLO, keep_alive=-1)
    assert caught.value.status_code == 403
    async with served(make_llm_router(), **FROM_LOOPBACK) as client:
        await client.chat("a", HELLO, keep_alive=-1)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_fails_is_said_as_ollama_does(
    stream: bool, make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    llm_router_engine.broken["a"] = ModelLoadError("broken file")

    async def asked(client: ollama.AsyncClient) -> None:
        answer: Any = await client.chat("a", HELLO, stream=stream)
        async for _ in answer:
            pytest.fail("there is nothing to read")

    async with served(make_llm_router()) as client:
        with pytest.raises(ollama.ResponseError, match="broken file") as caught:
            await asked(client)
    assert caught.value.status_code == 502


async def test_who_waited_in_vain_is_told_when_to_come_back(make_llm_router: MakeRouter) -> None:
    router = make_llm_router(models_max=1, queue_timeout_seconds=0.05)
    app = LLMRouterApp(router=router, routes=["ollama"])
    transport = httpx.ASGITransport(app)
    http = httpx.AsyncClient(transport=transport, base_url="http://test")
    async with router, http, router.acquire("a"):
        answer = await http.post("/api/chat", json={"model": "b", "messages": HELLO})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]


async def test_a_key_is_asked_for_where_there_are_any(make_llm_router: MakeRouter) -> None:
    async with served(make_llm_router(), api_keys=["secret"]) as client:
        with pytest.raises(ollama.ResponseError) as caught:
            await client.list()
    assert caught.value.status_code == 401


def chat(**fields: Any) -> ChatBody:
    import json

    return decoded(json.dumps({"model": "a", "messages": HELLO, **fields}).encode(), ChatBody)


async def test_options_that_have_a_meaning_are_followed() -> None:
    options = {
        "temperature": 0,
        "top_k": 3,
        "seed": 7,
        "num_predict": 5,
        "stop": ["x"],
        "num_ctx": 4096,
        "num_keep": 2,
    }
    task = chat(options=options, format="json").task("someone")
    assert task is not None
    sampling = task.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0, 3, 7)
    assert (task.max_tokens, task.stop, task.n_keep) == (5, ("x",), 2)
    assert sampling.json_schema == {"type": "object"}
    assert task.cache_namespace == "someone"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"options": {"temperature": "hot"}}, 400),
        ({"options": {"stop": 5}}, 400),
        ({"format": "yaml"}, 400),
        ({"messages": 5}, 400),
        ({"model": ""}, 400),
        ({"keep_alive": "soon"}, 400),
        ({"tools": [{"type": "function"}]}, 501),
        ({"messages": [{"role": "user", "content": "?", "images": ["aGk="]}]}, 501),
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_reason(
    fields: dict[str, Any], status: int, make_llm_router: MakeRouter
) -> None:
    router = make_llm_router()
    app = LLMRouterApp(router=router, routes=["ollama"])
    transport = httpx.ASGITransport(app)
    async with router, httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        body = {"model": "a", "messages": HELLO, **fields}
        answer = await http.post("/api/chat", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]


async def test_a_system_prompt_goes_before_the_prompt() -> None:
    task = decoded(b'{"model": "a", "prompt": "p", "system": "s"}', GenerateBody).task("")
    assert task is not None
    assert [message["role"] for message in task.messages] == ["system", "user"]  # type: ignore
