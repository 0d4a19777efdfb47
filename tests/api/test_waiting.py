"""What a client learns while its request waits, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import (
    LLMRouterError,
    ModelLoadError,
    QueueFullError,
    QueueTimeoutError,
)
from llm_router_mw.types import QueuePlace
from tests.support.asgi_driver import Client, http_scope, post
from tests.support.fake_router import FakeRouter, for_ever

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
SECOND = QueuePlace(position=2, expected_wait_seconds=4.2)
LOADING = QueuePlace(position=1, progress=0.4)
DOWNLOADING = QueuePlace(position=1, progress=0.3, is_downloading=True)
QUICK = {"wait_patience_seconds": 0.01, "wait_comment_seconds": 0.01}
PATIENT = {"wait_patience_seconds": 60.0}


def api(router: FakeRouter, **settings: Any) -> RouterAPI:
    return RouterAPI(router, api_settings(**settings))


def sender(stream: bool = True, **how: Any) -> Client:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "tiny", "messages": messages, "stream": stream}
    return Client(http_scope("POST", CHAT), [msgspec.json.encode(body)], **how)


def until(count: int, client: Client) -> Callable[[], Awaitable[None]]:
    """Return a wait for so many messages to *client*."""
    there = anyio.Event()
    client.on_message = lambda: there.set() if len(client.messages) >= count else None
    return there.wait


def waits_for(client: Client, count: int, *places: QueuePlace, **more: Any) -> FakeRouter:
    """Return a router whose lease waits for so many messages to *client*.

    It stands at each of *places* until the client was told of it.
    """
    router = FakeRouter(places={"tiny": places[0]}, **more)

    async def wait() -> None:
        await until(count, client)()
        for number, place in enumerate(places[1:], 1):
            assert router.on_queued is not None
            router.on_queued(place)
            await until(count + 2 * number, client)()

    router.waits["tiny"] = wait
    return router


def comments(client: Client) -> list[bytes]:
    return [piece for piece in client.pieces if piece.startswith(b":")]


async def test_a_stream_that_waits_begins_with_comments_about_it() -> None:
    client = sender()
    router = waits_for(client, 3, SECOND, DOWNLOADING, LOADING, QueuePlace(position=1))
    await client.run(api(router, **QUICK))
    assert client.status == 200
    told = list(dict.fromkeys(comments(client)))
    assert told == [
        b": queued, position 2, about 5 s\n\n",
        b": downloading 30 %\n\n",
        b": loading 40 %\n\n",
        b": queued, position 1\n\n",
    ]
    assert client.events[-1] == "[DONE]"
    assert client.complete


async def test_its_headers_say_where_it_stood() -> None:
    client = sender()
    await client.run(api(waits_for(client, 2, SECOND), **QUICK))
    assert client.headers["x-llm-router-queue-position"] == "2"
    assert client.headers["x-llm-router-expected-wait"] == "5"
    assert float(client.headers["x-llm-router-waited"]) > 0


async def test_a_place_without_a_forecast_promises_nothing() -> None:
    client = sender()
    await client.run(api(waits_for(client, 2, QueuePlace(position=1)), **QUICK))
    assert client.headers["x-llm-router-queue-position"] == "1"
    assert "x-llm-router-expected-wait" not in client.headers


@pytest.mark.parametrize("stream", [True, False])
async def test_a_short_wait_is_told_afterwards_only(stream: bool) -> None:
    client = sender(stream)
    router = FakeRouter(places={"tiny": SECOND}, waits={"tiny": anyio.wait_all_tasks_blocked})
    await client.run(api(router, **PATIENT))
    assert comments(client) == []
    assert "x-llm-router-queue-position" not in client.headers
    assert float(client.headers["x-llm-router-waited"]) >= 0


@pytest.mark.parametrize("stream", [True, False])
async def test_who_did_not_wait_is_told_of_no_wait(stream: bool) -> None:
    client = await sender(stream).run(api(FakeRouter(), **QUICK))
    assert not [name for name in client.headers if name.startswith("x-llm-router")]


async def test_a_whole_answer_waits_in_silence() -> None:
    client = sender(stream=False)
    router = FakeRouter(places={"tiny": SECOND}, waits={"tiny": lambda: anyio.sleep(0.05)})
    await client.run(api(router, **QUICK))
    assert len(client.messages) == 2
    assert float(client.headers["x-llm-router-waited"]) >= 0.05


async def test_who_does_not_wait_gets_no_comment_before_the_first_word() -> None:
    client = sender()
    # Nothing was queued: what takes its time is the model itself.
    router = FakeRouter(waits={"tiny": lambda: anyio.sleep(0.05)})
    await client.run(api(router, **QUICK, keep_alive_seconds=0.01))
    assert comments(client) == []


async def test_silence_after_the_wait_has_ended_is_filled_as_usual() -> None:
    client = sender()
    router = waits_for(client, 2, SECOND)

    async def think() -> None:
        await until(len(client.messages) + 2, client)()

    router.scripts["tiny"] = (think, *router.scripts["tiny"])
    await client.run(api(router, **QUICK, keep_alive_seconds=0.01))
    assert comments(client)[0].startswith(b": queued")
    assert comments(client)[-1] == b":\n\n"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_at_once_is_a_plain_answer_with_the_place_there_would_have_been(
    stream: bool,
) -> None:
    full = QueueFullError("full", position=7, expected_wait_seconds=30.0, retry_after_seconds=30.0)
    client = await sender(stream).run(api(FakeRouter(refusals={"tiny": full}), **QUICK))
    assert (client.status, client.error["code"]) == (429, "queue_full")
    assert client.headers["retry-after"] == "30"
    assert client.headers["x-llm-router-queue-position"] == "7"
    assert client.headers["x-llm-router-expected-wait"] == "30"


async def test_a_refusal_that_knows_no_place_names_none() -> None:
    router = FakeRouter(refusals={"tiny": QueueFullError("full")})
    client = await sender().run(api(router, **QUICK))
    assert client.status == 429
    assert "x-llm-router-queue-position" not in client.headers


async def test_a_wait_that_was_in_vain_is_a_plain_error_while_nothing_was_sent() -> None:
    late = QueueTimeoutError("too late")
    router = FakeRouter(places={"tiny": SECOND}, refusals={"tiny": late})
    client = await sender().run(api(router, **PATIENT))
    assert (client.status, client.error["code"]) == (503, "queue_timeout")
    assert client.headers["x-llm-router-queue-position"] == "2"


@pytest.mark.parametrize("error", [QueueTimeoutError("too late"), ModelLoadError("broken")])
async def test_an_error_after_comments_is_the_last_event(error: LLMRouterError) -> None:
    client = sender()
    await client.run(api(waits_for(client, 3, SECOND, refusals={"tiny": error}), **QUICK))
    assert client.status == 200
    [last] = client.events
    assert (last["error"]["message"], last["error"]["code"]) == (error.message, error.code)
    assert client.complete


async def test_a_fault_after_comments_is_told_without_its_details() -> None:
    client = sender()
    router = waits_for(client, 3, SECOND, refusals={"tiny": KeyError("secret")})
    await client.run(api(router, **QUICK))
    assert "secret" not in client.body.decode()
    assert client.events[0]["error"]["code"] == 500


async def test_who_leaves_while_told_to_wait_gives_up_the_place() -> None:
    client = sender(leaves_after=3)
    router = FakeRouter(places={"tiny": SECOND}, waits={"tiny": for_ever()})
    await client.run(api(router, **QUICK))
    assert router.lease_cancelled.is_set()


@pytest.mark.parametrize("after", [0, 1])
async def test_who_does_not_listen_while_told_to_wait_gives_up_the_place(
    after: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = sender(stalls_after=after)
    router = FakeRouter(places={"tiny": SECOND}, waits={"tiny": for_ever()})
    await client.run(api(router, **QUICK, client_stall_seconds=0.05))
    assert router.lease_cancelled.is_set()
    assert "took nothing for 0.05 s" in caplog.text


async def test_embeddings_tell_their_wait_too() -> None:
    late = QueueTimeoutError("too late")
    router = FakeRouter(places={"tiny": SECOND}, refusals={"tiny": late})
    client = await post(api(router), "/v1/embeddings", {"model": "tiny", "input": "Hi"})
    assert client.status == 503
    assert client.headers["x-llm-router-queue-position"] == "2"
