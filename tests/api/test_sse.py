from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import anyio
import pytest
from starlette.types import Message

from llm_router_mw.api import APISettings
from llm_router_mw.api.connection import ClientDisconnectedError, Connection
from llm_router_mw.api.sse import EventStream, event
from llm_router_mw.errors import ClientStalledError, WorkerDiedError
from tests.support.asgi_driver import Client, http_scope

pytestmark = pytest.mark.asyncio

QUICK = APISettings(keep_alive_seconds=0.02, client_stall_seconds=0.05)


class Source:
    """Chunks, and whether they were closed."""

    def __init__(self, *items: bytes | Exception | anyio.Event | None) -> None:
        self.items = items
        self.closed = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        try:
            for item in self.items:
                if isinstance(item, bytes):
                    yield item
                elif isinstance(item, Exception):
                    raise item
                elif item is not None:
                    await item.wait()
                else:
                    await anyio.sleep_forever()
        finally:
            self.closed = True


async def run(client: Client, source: Source, settings: APISettings) -> None:
    connection = Connection(client.scope, client.receive, client.send)
    with anyio.fail_after(10):
        await EventStream(connection, settings).run(source.chunks())


def new_client(*, stalls_after: int | None = None, breaks_after: int | None = None) -> Client:
    return Client(http_scope("GET", "/"), stalls_after=stalls_after, breaks_after=breaks_after)


async def test_an_event_is_json_on_a_data_line() -> None:
    assert event({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'


async def test_each_chunk_is_a_message_of_its_own() -> None:
    client = new_client()
    await run(client, Source(b"a", b"b"), APISettings())
    assert client.pieces == [b"a", b"b", b""]
    assert client.complete


async def test_no_chunk_at_all_is_an_empty_answer() -> None:
    client = new_client()
    await run(client, Source(), APISettings())
    assert client.status == 200
    assert client.complete


async def test_nothing_is_sent_before_the_first_chunk() -> None:
    client, source = new_client(), Source(WorkerDiedError("no"))
    with pytest.raises(WorkerDiedError):
        await run(client, source, APISettings())
    assert client.messages == []
    assert source.closed


async def test_silence_is_filled_with_comments() -> None:
    client, go_on = new_client(), anyio.Event()
    client.on_message = lambda: go_on.set() if len(client.messages) == 5 else None
    settings = APISettings(keep_alive_seconds=0.02)
    await run(client, Source(b"a", go_on, b"b"), settings)
    assert client.pieces[:4] == [b"a", b":\n\n", b":\n\n", b":\n\n"]
    assert client.pieces[-2:] == [b"b", b""]


async def test_a_reader_that_stalls_in_the_middle_of_a_chunk_is_given_up() -> None:
    client, source = new_client(stalls_after=2), Source(b"a", b"b", b"c")
    settings = APISettings(client_stall_seconds=0.05)
    with pytest.raises(ClientStalledError, match=r"took nothing for 0\.05 s"):
        await run(client, source, settings)
    assert source.closed
    assert not client.complete


async def test_very_little_patience_ends_too() -> None:
    settings = APISettings(client_stall_seconds=0.001)
    with anyio.fail_after(10.0), pytest.raises(ClientStalledError):
        await run(new_client(stalls_after=2), Source(b"a", b"b", b"c"), settings)


async def test_a_reader_that_stalls_at_the_status_line_is_given_up() -> None:
    with pytest.raises(ClientStalledError):
        await run(new_client(stalls_after=0), Source(b"a"), QUICK)


async def test_a_reader_that_stalls_at_a_comment_is_given_up() -> None:
    client, source = new_client(stalls_after=3), Source(b"a", None)
    with pytest.raises(ClientStalledError):
        await run(client, source, QUICK)
    assert client.pieces == [b"a", b":\n\n"]
    assert source.closed


async def test_a_line_that_breaks_at_a_comment_ends_the_stream() -> None:
    source = Source(b"a", None)
    with pytest.raises(ClientDisconnectedError):
        await run(new_client(breaks_after=2), source, QUICK)
    assert source.closed


async def test_a_chunk_that_waits_behind_a_comment_is_sent_after_it() -> None:
    client, go_on, taken = new_client(), anyio.Event(), anyio.Event()
    plain_send = client.send

    async def slow_send(message: dict[str, object]) -> None:
        if message.get("body") == b":\n\n":
            go_on.set()
            await anyio.wait_all_tasks_blocked()
            taken.set()
        await plain_send(message)

    client.send = slow_send  # type: ignore[method-assign, assignment]
    settings = APISettings(keep_alive_seconds=0.02)
    await run(client, Source(b"a", go_on, b"b"), settings)
    assert client.pieces == [b"a", b":\n\n", b"b", b""]
    assert taken.is_set()


async def test_a_stall_is_seen_though_the_stream_was_idle_before() -> None:
    client, go_on = new_client(stalls_after=2), anyio.Event()
    settings = APISettings(keep_alive_seconds=0.05, client_stall_seconds=0.03)
    source = Source(b"a", go_on, b"b")
    async with anyio.create_task_group() as group:
        group.start_soon(_set_when_idle, go_on)
        with pytest.raises(ClientStalledError):
            await run(client, source, settings)


async def _set_when_idle(event: anyio.Event) -> None:
    await anyio.wait_all_tasks_blocked()
    event.set()


async def test_time_in_which_the_loop_stood_still_is_not_the_clients() -> None:
    client, waited, takes = new_client(), anyio.Event(), anyio.Event()

    async def send(message: Message) -> None:
        if len(client.messages) == 2:
            waited.set()
            await takes.wait()
        await Client.send(client, message)

    async def block_the_loop() -> None:
        await waited.wait()
        await anyio.sleep(0.05)
        time.sleep(0.5)  # noqa: ASYNC251
        await anyio.sleep(0.05)  # it takes something as soon as it is its turn
        takes.set()

    client.send = send  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(block_the_loop)
        await run(client, Source(b"a", b"b"), APISettings(client_stall_seconds=0.2))
    assert client.pieces == [b"a", b"b", b""]
