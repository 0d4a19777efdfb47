"""From a task to the deltas of its answer, with the lease given back however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from llm_router_mw.api.waiting import Waiting
from llm_router_mw.errors import InvalidRequestError, LeaseExpiredError, WorkerDiedError
from llm_router_mw.protocols import DeltaStream, RouterContract
from llm_router_mw.types import ChatTask, CompletionTask, Delta, FinishDelta, ModelInfo, Task

Check = Callable[[ModelInfo], None]
"""Raises if the model that has been leased cannot serve the request."""
Answers = AsyncGenerator[tuple[int, Delta]]
"""Deltas of several answers, each with the number of the answer that it belongs to."""


@asynccontextmanager
async def answering(
    router: RouterContract,
    waiting: Waiting,
    task: Task,
    check: Check = lambda info: None,
) -> AsyncIterator[DeltaStream]:
    """Wait for the model, start *task* and hold its stream; on leaving, the task is over.

    Raises:
        InvalidRequestError: *check* did.
        LLMRouterError: the model cannot be had.
    """
    lease = await waiting.lease(router)
    try:
        check(lease.info)
        stream = lease.stream(task, release=True)
        try:
            yield stream
        finally:
            stream.cancel()
    finally:
        lease.release()


async def deltas(stream: DeltaStream) -> AsyncGenerator[Delta]:
    """Yield the deltas of *stream*; the last one is always a finish that the model meant.

    Raises:
        LLMRouterError: the answer failed, was cut off or cancelled.
    """
    async for delta in stream:
        if isinstance(delta, FinishDelta):
            if delta.reason == "cancelled":
                raise LeaseExpiredError(
                    "the request was cancelled before its answer was complete; send it again"
                )
            yield delta
            return
        yield delta
    raise WorkerDiedError("the answer broke off before its end; send the request again")


@asynccontextmanager
async def answering_often(
    router: RouterContract,
    waiting: Waiting,
    task: ChatTask | CompletionTask,
    count: int,
    check: Check,
) -> AsyncIterator[Answers]:
    """As ``answering``, for *count* answers to *task* at once; their deltas come as they are made.

    Raises:
        InvalidRequestError: the model does not answer so many at once.
        LLMRouterError: the model cannot be had.
    """
    if count == 1:
        async with answering(router, waiting, task, check) as stream:
            yield _numbered(stream)
        return
    lease = await waiting.lease(router)
    streams: list[DeltaStream] = []
    try:
        _check_count(count, lease.info)
        check(lease.info)
        # The engine computes their common prompt once. The lease must outlast the last of them.
        streams += [lease.stream(each) for each in _variations(task, count)]
        async with _merged(streams) as answers:
            yield answers
    finally:
        for stream in streams:
            stream.cancel()
        lease.release()


def _check_count(count: int, info: ModelInfo) -> None:
    most = info.n_parallel
    if count > most:
        raise InvalidRequestError(
            f"n is {count}; this model gives at most {most} answers at once (its load option "
            "n_parallel)",
            param="n",
        )


def _variations(task: ChatTask | CompletionTask, count: int) -> list[Task]:
    """Return *count* tasks that differ in their seeds only."""
    seed = task.sampling.seed
    tasks: list[Task] = []
    for number in range(count):
        varied = None if seed is None or seed == -1 else seed + number
        sampling = msgspec.structs.replace(task.sampling, seed=varied)
        tasks.append(msgspec.structs.replace(task, sampling=sampling))
    return tasks


async def _numbered(stream: DeltaStream) -> Answers:
    async with aclosing(deltas(stream)) as items:
        async for delta in items:
            yield 0, delta


@asynccontextmanager
async def _merged(streams: Sequence[DeltaStream]) -> AsyncIterator[Answers]:
    """Read all *streams* side by side; the first error of one is the error of all."""
    send, receive = anyio.create_memory_object_stream[tuple[int, Delta] | Exception]()
    failure: Exception | None = None
    # The readers end before the channel is closed, or they would trip over that.
    async with receive, anyio.create_task_group() as group:
        for number, stream in enumerate(streams):
            group.start_soon(_feed, number, stream, send.clone())
        send.close()
        try:
            async with aclosing(_received(receive)) as answers:
                yield answers
        # It must not leave the task group, which would wrap it.
        except Exception as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _feed(
    number: int, stream: DeltaStream, send: MemoryObjectSendStream[tuple[int, Delta] | Exception]
) -> None:
    async with send:
        try:
            async with aclosing(deltas(stream)) as items:
                async for delta in items:
                    await send.send((number, delta))
        except Exception as error:
            await send.send(error)


async def _received(
    receive: MemoryObjectReceiveStream[tuple[int, Delta] | Exception],
) -> Answers:
    async for item in receive:
        if isinstance(item, Exception):
            raise item
        yield item
