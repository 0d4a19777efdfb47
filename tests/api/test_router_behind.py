"""The dialects over a real router: what clients see while it loads, queues and sleeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.router import Router
from llm_router_mw.testing import FakeEngine, FakePlugin
from tests.support.asgi_driver import Client, get, http_scope, post
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
BOSS = [(b"x-api-key", b"boss")]
QUICK: dict[str, Any] = {"wait_patience_seconds": 0.01, "wait_comment_seconds": 0.01}


class Site:
    """A router behind its routes."""

    def __init__(self, router: Router, engine: FakeEngine) -> None:
        self.router = router
        self.engine = engine
        settings = api_settings(routes=("inference", "management"), admin_keys="boss", **QUICK)
        self.api = RouterAPI(router, settings)

    def client(self, model: str, *, headers: Any = (), **fields: Any) -> Client:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
        return Client(http_scope("POST", CHAT, headers), [msgspec.json.encode(body)])

    async def ask(self, model: str, **more: Any) -> Client:
        return await self.client(model, **more).run(self.api)

    async def manage(self, path: str, **fields: Any) -> Client:
        return await post(self.api, path, fields, headers=BOSS)

    async def look(self, path: str, query: bytes = b"") -> Any:
        return (await get(self.api, path, query_string=query, headers=BOSS)).json

    async def state(self, model: str) -> str:
        listed = (await self.look("/models"))["data"]
        [entry] = [each for each in listed if each["id"] == model]
        state: str = entry["instance"]["state"]
        return state

    async def until_state(self, model: str, state: str) -> None:
        with anyio.fail_after(5):
            async with self.router.events() as events:
                while await self.state(model) != state:
                    await anext(events)


@asynccontextmanager
async def site(folder: Path, **options: Any) -> AsyncIterator[Site]:
    plugin = FakePlugin(folder)
    async with Router(plugins=[plugin], engine="fake", **options) as router:
        yield Site(router, plugin.engine)


async def told(client: Client, words: bytes) -> None:
    await until(lambda: words in client.body)


async def test_a_stream_to_a_cold_model_is_told_of_its_load(tmp_path: Path) -> None:
    async with site(tmp_path) as served, anyio.create_task_group() as group:
        served.engine.slow.add("a")
        client = served.client("a", stream=True)
        group.start_soon(client.run, served.api)
        await told(client, b": loading 50 %\n\n")
        assert client.headers["x-llm-router-queue-position"] == "1"
        served.engine.latest("a").ready.set()
    assert client.events[-1] == "[DONE]"


async def test_a_stream_behind_another_model_is_told_its_place(tmp_path: Path) -> None:
    async with (
        site(tmp_path, models_max=1) as served,
        anyio.create_task_group() as group,
        served.router.acquire("a"),
    ):
        client = served.client("b", stream=True)
        group.start_soon(client.run, served.api)
        await told(client, b": queued, position 1, about ")
        [entry] = [each for each in (await served.look("/models"))["data"] if each["id"] == "b"]
        assert (entry["instance"]["waiting"], entry["instance"]["queue_position"]) == (1, 1)
    assert client.events[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_waits_no_longer_than_it_wants_to(tmp_path: Path, stream: bool) -> None:
    async with site(tmp_path, models_max=1) as served, served.router.acquire("a"):
        # Too short for comments to begin: the refusal is a plain answer.
        served.api = RouterAPI(served.router, api_settings())
        headers = [(b"x-llm-router-timeout", b"0.05")]
        client = await served.ask("b", headers=headers, stream=stream)
    assert (client.status, client.error["code"]) == (503, "queue_timeout")
    assert int(client.headers["retry-after"]) >= 1
    assert client.headers["x-llm-router-queue-position"] == "1"
    assert float(client.headers["x-llm-router-waited"]) >= 0.05


async def test_a_stream_that_waited_in_vain_ends_with_the_error(tmp_path: Path) -> None:
    async with site(tmp_path, models_max=1) as served, served.router.acquire("a"):
        headers = [(b"x-llm-router-timeout", b"0.2")]
        client = await served.ask("b", headers=headers, stream=True)
    assert client.status == 200
    assert client.events[-1]["error"]["code"] == "queue_timeout"


async def test_a_full_queue_refuses_before_any_stream_begins(tmp_path: Path) -> None:
    options = {"models_max": 1, "max_queue": 1}
    async with (
        site(tmp_path, **options) as served,
        anyio.create_task_group() as group,
        served.router.acquire("a"),
    ):
        first = served.client("b", stream=True)
        group.start_soon(first.run, served.api)
        await told(first, b": queued")
        second = await served.ask("c", stream=True)
    assert (second.status, second.error["code"]) == (429, "queue_full")
    assert second.headers["x-llm-router-queue-position"] == "2"
    assert int(second.headers["x-llm-router-expected-wait"]) >= 1
    assert int(second.headers["retry-after"]) >= 1
    assert first.events[-1] == "[DONE]"


async def test_higher_priority_goes_first(tmp_path: Path) -> None:
    async with (
        site(tmp_path, models_max=1) as served,
        anyio.create_task_group() as group,
        served.router.acquire("a"),
    ):
        early = served.client("b", stream=True)
        group.start_soon(early.run, served.api)
        await told(early, b": queued, position 1")
        urgent = served.client("c", headers=BOSS, priority=5, stream=True)
        group.start_soon(urgent.run, served.api)
        await told(urgent, b": queued, position 1")
    assert served.engine.loads == ["a", "c", "b"]


async def test_a_model_that_is_not_kept_goes_when_its_request_is_done(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        await served.ask("a", keep_alive=0)
        await served.until_state("a", "unloaded")


async def test_a_model_sleeps_and_wakes_on_demand_and_looking_wakes_it_not(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        await served.ask("a")
        await served.manage("/models/sleep", model="a", level="context")
        await served.until_state("a", "sleeping")
        for _ in range(3):
            assert (await served.look("/props", b"model=a"))["is_sleeping"] is True
            assert len(await served.look("/slots", b"model=a")) == 4
            assert (await served.look("/v1/models"))["data"][0]["status"]["value"] == "sleeping"
        assert served.engine.latest("a").told == ["context"]
        await served.manage("/models/wake", model="a")
        await served.until_state("a", "loaded")
        assert (await served.look("/props", b"model=a"))["is_sleeping"] is False


async def test_a_busy_model_falls_asleep_when_it_is_done(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        async with served.router.acquire("a"):
            answer = await served.manage("/models/sleep", model="a")
            assert answer.status == 202
        await served.until_state("a", "sleeping")


async def test_slots_are_taken_while_an_answer_is_made(tmp_path: Path) -> None:
    async with site(tmp_path) as served, anyio.create_task_group() as group:
        served.engine.hold = True
        client = served.client("a")
        group.start_soon(client.run, served.api)
        await until(lambda: served.engine.instances and served.engine.instances[0].streams)
        slots = await served.look("/slots", b"model=a")
        assert [slot["is_processing"] for slot in slots] == [True, False, False, False]
        assert slots[0]["prompt"] == [{"role": "user", "content": "Hi"}]
        served.engine.latest("a").streams[0].give()
    assert client.status == 200
    async with site(tmp_path) as served:
        assert not any(slot["is_processing"] for slot in await served.look("/slots", b"model=a"))


async def test_a_sleeping_model_answers_again(tmp_path: Path) -> None:
    async with site(tmp_path) as served:
        await served.ask("a")
        await served.manage("/models/sleep", model="a")
        await served.until_state("a", "sleeping")
        assert (await served.ask("a")).status == 200
        assert served.engine.latest("a").told == ["full", "wake"]


async def test_events_carry_how_the_model_is_doing(tmp_path: Path) -> None:
    async with site(tmp_path) as served, anyio.create_task_group() as group:
        client = Client(http_scope("GET", "/models/sse", BOSS))
        group.start_soon(client.run, served.api)
        await told(client, b"snapshot")
        await served.ask("a")
        await told(client, b'"status":"loaded"')
        client.gone.set()
    [loaded] = [
        each["data"]
        for each in client.events
        if each["event"] == "status_change" and each["data"].get("status") == "loaded"
    ]
    assert loaded["instance"]["state"] == "loaded"
