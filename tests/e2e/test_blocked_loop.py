"""A host app that blocks its event loop, which is the router's too: nobody pays but with time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from llm_router_mw import ChatTask, RouterContract
from llm_router_mw.types import InstanceState, Sampling
from tests.support.answers import ask, ask_streamed, chat_body
from tests.support.real_router import pid_of, reached, real_router, state, text_of
from tests.support.served import Served, served

STALL_SECONDS = 2.0
"""More than a worker lets pass between two signs of life, less than the loop is blocked."""
BLOCKED_SECONDS = 2.5
QUESTION = chat_body("slow", max_tokens=160)


async def block(request: Request) -> PlainTextResponse:
    """Do what no handler should."""
    time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251
    return PlainTextResponse("sorry")


class Outcome(NamedTuple):
    """What became of all that was under way when the loop was blocked."""

    expected: str
    streams: list[str]
    elsewhere: str
    """What somebody read in another event loop."""
    client: bytes
    """What came on the line of a client that reads slowly."""
    workers: tuple[int, int]
    """The process of the model, before and after."""


@pytest.fixture(scope="module")
def outcome(models_dir: Path) -> Outcome:
    stall = {"client_stall_seconds": STALL_SECONDS}
    own = [Route("/block", block)]
    limits = {"n_ctx": 8192, "worker_stall_seconds": STALL_SECONDS, **stall}
    with (
        served(models_dir=models_dir, own=own, door=stall, send_buffer=4096, **limits) as server,
        ThreadPoolExecutor() as pool,
    ):
        expected = ask(server.http, **QUESTION)
        worker = server.worker_pid("slow")
        assert ask(server.http, "a", max_tokens=1)
        line = slow_client(server)
        streams = [pool.submit(ask_streamed, server.http, **QUESTION) for _ in range(2)]
        elsewhere = pool.submit(anyio.run, read, server.router)
        server.until(lambda s: s.view("slow").leases == 3, "the leases")
        time.sleep(0.4)  # by then the server waits for the slow client
        blocking = pool.submit(server.http.get, "/block")
        time.sleep(0.2)  # by then the loop is blocked
        with line:
            client = b"".join(iter(lambda: line.recv(65536), b""))
        assert blocking.result().text == "sorry"
        return Outcome(
            expected,
            ["".join(stream.result()) for stream in streams],
            elsewhere.result(),
            client,
            (worker, server.worker_pid("slow")),
        )


def slow_client(server: Served) -> socket.socket:
    """Return the line of a client for which the server has to wait: it reads later."""
    # With the figures for other tokens a delta fills a good part of the buffers on the way.
    fields = {"max_tokens": 200, "stream": True, "logprobs": True, "top_logprobs": 20}
    body = json.dumps(chat_body("a", **fields)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", server.port))
    line.sendall(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
    return line


async def read(router: RouterContract) -> str:
    """Return the answer to the same question, read in this loop."""
    messages, tokens = tuple(QUESTION["messages"]), QUESTION["max_tokens"]
    task = ChatTask(messages=messages, max_tokens=tokens, sampling=Sampling(temperature=0.0))
    async with router.acquire("slow") as llm:
        return text_of([delta async for delta in llm.stream(task)])


def test_streams_go_on_where_they_were(outcome: Outcome) -> None:
    assert outcome.streams == [outcome.expected] * 2
    assert outcome.workers[0] == outcome.workers[1]


def test_readers_in_other_loops_wait_and_read_on(outcome: Outcome) -> None:
    assert outcome.elsewhere == outcome.expected


def test_a_client_that_could_be_given_nothing_has_not_stalled(outcome: Outcome) -> None:
    assert b"data: [DONE]" in outcome.client


@pytest.mark.asyncio
async def test_every_step_of_a_models_life_may_be_interrupted(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    limits = ("worker_stall_seconds", "load_stall_seconds", "stop_timeout_seconds")
    seconds = 0.7

    async def interrupted(step: Callable[[], Awaitable[object]], during: InstanceState) -> None:
        async def interrupt() -> None:
            await reached(router, "a", during)
            await anyio.sleep(0.005)  # until the worker has begun
            time.sleep(1.5 * seconds)  # noqa: ASYNC251

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt)
            await step()

    async with real_router(models_dir=str(models_dir), **dict.fromkeys(limits, seconds)) as router:
        await interrupted(lambda: router.load("a"), InstanceState.LOADING)
        worker = pid_of(router, "a")
        await interrupted(lambda: router.sleep("a"), InstanceState.FALLING_ASLEEP)
        await interrupted(lambda: router.wake("a"), InstanceState.WAKING)
        assert pid_of(router, "a") == worker
        await interrupted(lambda: router.unload("a"), InstanceState.STOPPING)
        assert state(router, "a") is InstanceState.UNLOADED
    assert [each.message for each in caplog.records if each.name != "llm_router_mw.memory"] == []
