"""The requests that a worker works on."""

from __future__ import annotations

from unittest.mock import Mock

import anyio
import pytest

from llm_router_mw.errors import WorkerDiedError
from llm_router_mw.router.requests import Requests
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.types import ContentDelta

pytestmark = pytest.mark.asyncio


def stream(requests: Requests, number: int) -> RequestStream:
    """Return a stream that is one of *requests* until it is over."""
    made = RequestStream(number, Mock(), lambda: requests.remove(number), Mock())
    requests.add(number, made)
    return made


async def test_each_gets_what_is_its_own() -> None:
    requests = Requests(30.0)
    one, two = stream(requests, 1), stream(requests, 2)
    requests.feed([(2, ContentDelta("b")), (3, ContentDelta("nobody's")), (1, ContentDelta("a"))])
    assert (await anext(one), await anext(two)) == (ContentDelta("a"), ContentDelta("b"))


async def test_all_fail_together() -> None:
    requests = Requests(30.0)
    streams = [stream(requests, number) for number in range(3)]
    requests.fail(WorkerDiedError("gone"))
    for each in streams:
        with pytest.raises(WorkerDiedError):
            await anext(each)


async def test_only_silence_in_the_middle_of_work_is_being_stuck() -> None:
    requests = Requests(0.2)
    stuck_at: list[float] = []

    async def watch() -> None:
        await requests.stuck()
        stuck_at.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.sleep(0.3)
        first = stream(requests, 1)
        await anyio.sleep(0.15)
        first.fail(WorkerDiedError("over"))
        requests.remove(1)  # it is over already
        await anyio.sleep(0.3)
        began = anyio.current_time()
        stream(requests, 2)
        stream(requests, 3)
        await anyio.sleep(0.15)
        requests.heard()
        assert not stuck_at
    assert stuck_at[0] - began >= 0.15 + 0.2
