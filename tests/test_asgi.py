"""The middleware as a door: what goes through, what is ours, and who runs the router."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from llm_router_mw.asgi import LLMRouterApp, LLMRouterMiddleware
from llm_router_mw.errors import ConfigError
from llm_router_mw.types import ContentDelta
from tests.support.asgi_driver import Client, get, http_scope, post
from tests.support.fake_router import FINISH, FakeRouter

pytestmark = pytest.mark.asyncio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


class Inner:
    """An app that remembers what reached it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Scope, Receive, Send]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append((scope, receive, send))


@pytest.fixture
def router() -> FakeRouter:
    router = FakeRouter()
    router.running = True
    return router


async def pass_through(door: LLMRouterMiddleware, inner: Inner, scope: Scope) -> None:
    """Check that the app gets the very same objects."""
    client = Client(scope)
    given = (client.scope, client.receive, client.send)
    await door(*given)
    assert len(inner.calls) == 1
    scope, receive, send = inner.calls[0]
    assert scope is given[0]
    assert (receive, send) == given[1:]
    assert client.messages == []


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/models", "/v1x", "/api/v1/models"])
async def test_the_apps_own_paths_go_straight_through(router: FakeRouter, path: str) -> None:
    inner = Inner()
    scope = http_scope("POST", path)
    await pass_through(LLMRouterMiddleware(inner, router=router), inner, scope)
    assert scope["llm_router"] is router


async def test_websockets_go_straight_through_also_on_our_paths(router: FakeRouter) -> None:
    inner = Inner()
    scope = http_scope("GET", "/v1/models", type="websocket")
    await pass_through(LLMRouterMiddleware(inner, router=router), inner, scope)
    assert scope["llm_router"] is router


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_an_error_of_the_app_is_the_servers_to_see(router: FakeRouter, kind: str) -> None:
    error = ZeroDivisionError("the app broke")

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    client = Client(http_scope("GET", "/", type=kind))
    with pytest.raises(ZeroDivisionError) as raised:
        await client.run(LLMRouterMiddleware(broken, router=router))
    assert raised.value is error
    assert error.__context__ is None
    assert client.messages == []


async def test_unknown_scope_types_go_through_untouched(router: FakeRouter) -> None:
    inner = Inner()
    scope: Scope = {"type": "mqtt"}
    await pass_through(LLMRouterMiddleware(inner, router=router), inner, scope)
    assert scope == {"type": "mqtt"}


async def test_our_paths_do_not_reach_the_app(router: FakeRouter) -> None:
    inner = Inner()
    answer = await get(LLMRouterMiddleware(inner, router=router), "/v1/nope")
    assert answer.status == 404
    assert inner.calls == []


async def test_the_prefix_moves_our_paths(router: FakeRouter) -> None:
    inner = Inner()
    door = LLMRouterMiddleware(inner, router=router, prefix="/llm")
    assert (await get(door, "/llm/v1/models")).status == 200
    await get(door, "/v1/models")
    assert len(inner.calls) == 1


async def test_a_root_path_of_the_server_is_no_hindrance(router: FakeRouter) -> None:
    door = LLMRouterMiddleware(Inner(), router=router)
    for path in ("/api/v1/models", "/v1/models"):
        assert (await get(door, path, root_path="/api")).status == 200


async def test_of_nested_routers_the_innermost_is_the_apps(router: FakeRouter) -> None:
    inner, other = Inner(), FakeRouter()
    door = LLMRouterMiddleware(
        LLMRouterMiddleware(inner, router=router, prefix="/a"), router=other, prefix="/b"
    )
    scope = http_scope("GET", "/")
    await pass_through(door, inner, scope)
    assert scope["llm_router"] is router


async def test_management_is_there_where_asked_for(router: FakeRouter) -> None:
    inner = Inner()
    door = LLMRouterMiddleware(
        inner, router=router, routes=["management"], authorize=lambda scope: True
    )
    assert (await get(door, "/models")).status == 200
    await get(door, "/v1/models")
    assert len(inner.calls) == 1


async def test_options_are_checked_when_the_door_is_made() -> None:
    with pytest.raises(ConfigError, match="admin_keys"):
        LLMRouterMiddleware(Inner(), router=FakeRouter(), routes=["management"])
    with pytest.raises(ConfigError, match="unknown option 'modelsdir'"):
        LLMRouterMiddleware(Inner(), modelsdir="x")
    with pytest.raises(ConfigError, match=r"models_dir: options of a router"):
        LLMRouterMiddleware(Inner(), router=FakeRouter(), models_dir="x")


async def test_options_make_a_router() -> None:
    door = LLMRouterMiddleware(Inner(), models_max=3, client_stall_seconds=5)
    assert not door.router.running
    assert door.router.config.models_max == 3  # type: ignore[attr-defined]


# Nobody sends a lifespan


@pytest.fixture
def lonely() -> Iterator[tuple[LLMRouterMiddleware, FakeRouter]]:
    router = FakeRouter()
    door = LLMRouterMiddleware(Inner(), router=router)
    yield door, router
    door.thread.stop()


async def test_without_a_lifespan_the_router_starts_on_its_own_thread(
    lonely: tuple[LLMRouterMiddleware, FakeRouter],
) -> None:
    door, router = lonely
    await get(door, "/")
    assert router.starts == 0
    assert (await post(door, "/v1/chat/completions", CHAT)).status == 200
    assert (await get(door, "/v1/models")).status == 200
    assert router.starts == 1
    door.thread.stop()
    assert router.stops == 1


async def test_many_first_requests_start_it_once(
    lonely: tuple[LLMRouterMiddleware, FakeRouter],
) -> None:
    door, router = lonely
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(get, door, "/v1/models")
    assert router.starts == 1


async def test_a_router_that_does_not_start_is_told_to_each_client() -> None:
    router = FakeRouter(start_error=ConfigError("no such directory"))
    door = LLMRouterMiddleware(Inner(), router=router)
    for _ in range(2):
        answer = await get(door, "/v1/models")
        assert (answer.status, answer.error["message"]) == (500, "no such directory")


async def test_a_mount_without_a_lifespan_works_too() -> None:
    llm = LLMRouterApp(router=FakeRouter())
    client = TestClient(Starlette(routes=[Mount("/llm", llm)]))
    try:
        assert client.get("/llm/v1/models").status_code == 200
    finally:
        llm.thread.stop()


async def test_the_app_closes_websockets_that_it_does_not_know(router: FakeRouter) -> None:
    client = Client(http_scope("GET", "/ws", type="websocket"))
    await client.run(LLMRouterApp(router=router))
    assert client.messages == [{"type": "websocket.close", "code": 1000}]


async def test_requests_may_come_from_a_second_event_loop(router: FakeRouter) -> None:
    """A door holds nothing that belongs to one loop."""
    door = LLMRouterMiddleware(Inner(), router=router)
    gate = anyio.Event()
    router.scripts["slow"] = [ContentDelta("a"), gate.wait, FINISH]
    elsewhere: list[int] = []

    def other_loop() -> None:
        async def ask() -> None:
            elsewhere.append(
                (await post(door, "/v1/chat/completions", {**CHAT, "stream": True})).status
            )

        anyio.run(ask)

    async with anyio.create_task_group() as group:
        group.start_soon(post, door, "/v1/chat/completions", {**CHAT, "model": "slow"})
        await anyio.wait_all_tasks_blocked()
        thread = threading.Thread(target=other_loop)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert elsewhere == [200]
        gate.set()
