"""A host app that blocks its event loop, which is the router's too: nobody pays but with time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from llm_router_mw import ChatTask
from llm_router_mw.types import InstanceState, Sampling
from tests.support.answers import ask, ask_streamed, chat_body
from tests.support.real_router import HELLO, pid_of, reached, real_router, state, text_of
from tests.support.served import Served, served
from tests.support.waiting import until

STALL_SECONDS = 2.0
"""More than a worker lets pass between two signs of life, less than the loop is blocked."""
BLOCKED_SECONDS = 2.5


async def block(request: Request) -> PlainTextResponse:
    """Do what no handler should."""
    time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251
    return PlainTextResponse("sorry")


@pytest.fixture(scope="module")
def server(models_dir: Path) -> Iterator[Served]:
    stall = {"client_stall_seconds": STALL_SECONDS}
    own = [Route("/block", block)]
    with served(
        models_dir=models_dir,
        own=own,
        door=stall,
        send_buffer=4096,
        n_ctx=8192,
        worker_stall_seconds=STALL_SECONDS,
        **stall,
    ) as running:
        yield running


def test_streams_go_on_where_they_were(server: Served) -> None:
    with ThreadPoolExecutor(2) as pool:
        expected = ask(server.http, "slow", max_tokens=160)
        worker = server.worker_pid("slow")
        streams = [pool.submit(ask_streamed, server.http, "slow", max_tokens=160) for _ in range(2)]
        server.until(lambda s: s.view("slow").leases == 2, "the leases")
        assert server.http.get("/block").text == "sorry"
        assert not any(stream.done() for stream in streams)
        assert ["".join(stream.result()) for stream in streams] == [expected] * 2
    assert server.worker_pid("slow") == worker


def test_a_client_that_could_be_given_nothing_has_not_stalled(server: Served) -> None:
    body = json.dumps(chat_body("a", max_tokens=1500, stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    with socket.socket() as line, ThreadPoolExecutor(1) as pool:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", server.port))
        line.sendall(head.encode() + b"\r\n\r\n" + body)
        answer = line.recv(1024)
        # By then the server waits for it; it goes on to read while the server can't see that.
        time.sleep(0.6 * STALL_SECONDS)
        blocking = pool.submit(server.http.get, "/block")
        time.sleep(0.1)
        while not answer.endswith(b"0\r\n\r\n"):
            received = line.recv(65536)
            assert received, f"it broke off after {answer[-200:]!r}"
            answer += received
        assert blocking.result().text == "sorry"
    assert b"data: [DONE]" in answer


# The router's loop is this one


@pytest.mark.asyncio
async def test_every_step_of_a_models_life_may_be_interrupted(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    limits = ("worker_stall_seconds", "load_stall_seconds", "stop_timeout_seconds")
    seconds = 1.0

    async def interrupted(step: Callable[[], Awaitable[object]], during: InstanceState) -> None:
        async def interrupt() -> None:
            await reached(router, "slow", during)
            await anyio.sleep(0.005)  # until the worker has begun
            time.sleep(1.2 * seconds)  # noqa: ASYNC251

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            await step()

    async with real_router(models_dir=str(models_dir), **dict.fromkeys(limits, seconds)) as router:
        await interrupted(lambda: router.load("slow"), InstanceState.LOADING)
        worker = pid_of(router, "slow")
        await interrupted(lambda: router.sleep("slow"), InstanceState.FALLING_ASLEEP)
        await interrupted(lambda: router.wake("slow"), InstanceState.WAKING)
        assert pid_of(router, "slow") == worker
        await interrupted(lambda: router.unload("slow"), InstanceState.STOPPING)
        assert state(router, "slow") is InstanceState.UNLOADED
    assert [each.message for each in caplog.records if each.name != "llm_router_mw.memory"] == []


@pytest.mark.asyncio
async def test_readers_in_other_loops_wait_and_read_on(models_dir: Path) -> None:
    task = ChatTask(messages=tuple(HELLO), max_tokens=160, sampling=Sampling(temperature=0.0))

    begun = threading.Event()

    async def read() -> str:
        async with router.acquire("slow") as llm:
            stream = llm.stream(task)
            deltas = [await anext(stream)]
            begun.set()
            return text_of([*deltas, *[delta async for delta in stream]])

    async def block_this_loop() -> None:
        await until(begun.is_set)
        time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251

    async with real_router(
        models_dir=str(models_dir), worker_stall_seconds=STALL_SECONDS
    ) as router:
        expected = await read()
        begun.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(block_this_loop)
            assert await anyio.to_thread.run_sync(anyio.run, read) == expected
