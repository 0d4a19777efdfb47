"""From a task to the deltas of its answer, with the lease given back however it ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from llm_router_mw.api.connection import Connection
from llm_router_mw.errors import LeaseExpiredError, WorkerDiedError
from llm_router_mw.protocols import DeltaStream, RouterContract
from llm_router_mw.types import Delta, FinishDelta, Task


@asynccontextmanager
async def answering(
    connection: Connection, router: RouterContract, model: str, task: Task
) -> AsyncIterator[DeltaStream]:
    """Wait for *model*, start *task* and hold its stream; on leaving, the task is over.

    Raises:
        LLMRouterError: the model cannot be had.
    """
    lease = await router.lease(model, autoload=_autoload(connection))
    try:
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


def _autoload(connection: Connection) -> bool | None:
    given = connection.query("autoload")
    return None if given is None else given in ("1", "true")
