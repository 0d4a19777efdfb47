"""Clients of worker processes that end with the test, and what they are asked to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins.chat_formats import llm_router_register_chat_formats
from llm_router_mw.router.client import WorkerClient
from llm_router_mw.router.process import WorkerProcess
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    FinishDelta,
    LoadOptions,
    Sampling,
    Task,
)
from llm_router_mw.wire import Load
from tests.router.conftest import OPTIONS

CHAT = ChatTask(
    messages=({"role": "user", "content": "hi"},), max_tokens=5, sampling=Sampling(seed=1)
)
ENDLESS = CompletionTask(prompt="on and on", sampling=Sampling(seed=1))


@asynccontextmanager
async def worker(
    *,
    stall_seconds: float = 60.0,
    load_stall_seconds: float = 60.0,
    worker_stall_seconds: float = 60.0,
) -> AsyncIterator[WorkerClient]:
    """Start a worker; on leaving, it is gone."""
    process = await WorkerProcess.spawn()
    made = WorkerClient(
        process,
        stall_seconds=stall_seconds,
        load_stall_seconds=load_stall_seconds,
        worker_stall_seconds=worker_stall_seconds,
    )
    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.run)
            yield made
            tasks.cancel_scope.cancel()
    assert process.exited


def order(path: Path | str, options: LoadOptions = OPTIONS, identity: str = "") -> Load:
    """Return the order to load *path*."""
    formats = llm_router_register_chat_formats(RouterConfig())
    return Load(path=str(path), options=options, chat_formats=formats, identity=identity)


def ignore_progress(value: float) -> None:
    """Take no note of how far a load is."""


def nothing() -> None:
    """Do nothing when a request is over."""


async def start(made: WorkerClient, path: Path | str = "x") -> None:
    """Bring a worker to the point where it takes tasks; a scripted one needs no file."""
    await made.greet()
    await made.load(order(path), ignore_progress)


async def read(made: WorkerClient, task: Task) -> tuple[str, FinishDelta]:
    """Return the whole answer to *task*, and its finish."""
    text = ""
    async for delta in made.submit(task, nothing):
        if isinstance(delta, ContentDelta):
            text += delta.text
    assert isinstance(delta, FinishDelta)
    return text, delta
