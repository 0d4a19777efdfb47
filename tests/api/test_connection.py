from __future__ import annotations

import anyio
import pytest

from llm_router_mw.api.connection import ClientDisconnectedError, Connection, alongside
from tests.support.asgi_driver import Client, http_scope

pytestmark = pytest.mark.asyncio


async def work() -> str:
    return "done"


async def fail() -> None:
    raise KeyError("it failed")


async def test_the_companion_ends_with_the_work() -> None:
    with anyio.fail_after(5):
        assert await alongside(anyio.sleep_forever, work) == "done"


async def test_the_work_ends_with_a_companion_that_fails() -> None:
    with anyio.fail_after(5), pytest.raises(KeyError):
        await alongside(fail, anyio.sleep_forever)


async def test_an_error_of_the_work_comes_bare() -> None:
    with anyio.fail_after(5), pytest.raises(KeyError):
        await alongside(anyio.sleep_forever, fail)


async def test_a_companion_that_is_done_leaves_the_work_alone() -> None:
    async def nothing() -> None:
        pass

    async def slow() -> str:
        await anyio.wait_all_tasks_blocked()
        return "done"

    assert await alongside(nothing, slow) == "done"


async def test_being_cancelled_from_outside_ends_both() -> None:
    with anyio.move_on_after(0.01) as scope:
        await alongside(anyio.sleep_forever, anyio.sleep_forever)
    assert scope.cancelled_caught


async def test_leftover_body_messages_are_no_disconnect() -> None:
    client = Client(http_scope("POST", "/"), [b"a", b"b"])
    connection = Connection(client.scope, client.receive, client.send)

    async def leave_later() -> None:
        await anyio.wait_all_tasks_blocked()
        client.gone.set()
        await anyio.sleep_forever()

    with anyio.fail_after(5), pytest.raises(ClientDisconnectedError):
        await connection.while_connected(leave_later)


async def test_a_query_parameter_is_found() -> None:
    client = Client(http_scope("GET", "/", query_string=b"a=1&b=&a=2"))
    connection = Connection(client.scope, client.receive, client.send)
    assert [connection.query(name) for name in "abc"] == ["1", "", None]


async def test_a_header_is_found_whatever_its_case() -> None:
    headers = [(b"x-one", b"1"), (b"x-two", b"caf\xe9"), (b"x-one", b"2")]
    client = Client(http_scope("GET", "/", headers))
    connection = Connection(client.scope, client.receive, client.send)
    assert [connection.header(name) for name in ("X-One", "x-two", "x-three")] == [
        "1",
        "caf\xe9",
        None,
    ]


async def test_more_headers_go_with_every_answer() -> None:
    client = Client(http_scope("GET", "/"))
    connection = Connection(client.scope, client.receive, client.send)
    connection.more_headers = lambda: [(b"x-more", b"1")]
    await connection.json({})
    assert client.headers["x-more"] == "1"
