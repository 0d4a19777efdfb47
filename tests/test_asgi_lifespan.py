"""The lifespan of the middleware around every kind of app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_router_mw.asgi import LLMRouterApp, LLMRouterMiddleware
from llm_router_mw.errors import ConfigError
from tests.support.fake_router import FakeRouter

COMPLETE = {"type": "lifespan.startup.complete"}
SHUTDOWN_COMPLETE = {"type": "lifespan.shutdown.complete"}


class Server:
    """Speaks the server's side of the lifespan and notes whether the router ran meanwhile."""

    def __init__(self, router: FakeRouter, *, state: dict[str, Any] | None = None) -> None:
        self.scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        if state is not None:
            self.scope["state"] = state
        self.answers: list[Message] = []
        self.running: list[bool] = []
        self.error: Exception | None = None
        self.never_stops = False
        self._router = router
        self._asked = ["lifespan.shutdown", "lifespan.startup"]
        self._started = anyio.Event()

    async def receive(self) -> Message:
        kind = self._asked.pop()
        if kind == "lifespan.shutdown":
            await self._started.wait()
            await anyio.wait_all_tasks_blocked()
            if self.never_stops:
                await anyio.sleep_forever()
        return {"type": kind}

    async def send(self, message: Message) -> None:
        self.answers.append(message)
        self.running.append(self._router.running)
        self._started.set()

    async def live(self, app: ASGIApp) -> Server:
        with anyio.fail_after(5):
            try:
                await app(self.scope, self.receive, self.send)
            except Exception as error:
                self.error = error
        return self


class App:
    """An app whose lifespan does *acts*, and which notes whether the router ran at each."""

    def __init__(self, router: FakeRouter, *acts: str) -> None:
        self.router = router
        self.acts = acts
        self.heard: list[tuple[str, bool]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for act in self.acts:
            if act == "receive":
                message = await receive()
                self.heard.append((message["type"], self.router.running))
            elif act == "raise":
                raise RuntimeError("the app broke")
            else:
                message = {"type": f"lifespan.{act}"}
                await send(message | ({"message": "no"} if act.endswith("failed") else {}))


NORMAL = ("receive", "startup.complete", "receive", "shutdown.complete")

pytestmark = pytest.mark.asyncio


async def live(
    *acts: str, router: FakeRouter | None = None, state: dict[str, Any] | None = None
) -> tuple[Server, App, FakeRouter]:
    router = router or FakeRouter()
    app = App(router, *acts)
    server = await Server(router, state=state).live(LLMRouterMiddleware(app, router=router))
    return server, app, router


async def test_the_router_is_up_before_the_app_and_down_after_it() -> None:
    server, app, router = await live(*NORMAL)
    assert app.heard == [("lifespan.startup", True), ("lifespan.shutdown", True)]
    assert server.answers == [COMPLETE, SHUTDOWN_COMPLETE]
    assert server.running == [True, False]
    assert (router.starts, router.stops) == (1, 1)
    assert server.error is None


@pytest.mark.parametrize("acts", [("raise",), ("receive", "raise"), (), ("receive",)])
async def test_an_app_without_a_lifespan_gets_one_for_its_router(acts: tuple[str, ...]) -> None:
    server, _, router = await live(*acts)
    assert server.answers == [COMPLETE, SHUTDOWN_COMPLETE]
    assert server.running == [True, False]
    assert router.stops == 1
    assert server.error is None


@pytest.mark.parametrize("acts", [("receive", "startup.failed"), ("startup.failed", "raise")])
async def test_a_failed_start_is_told_when_the_router_has_closed(acts: tuple[str, ...]) -> None:
    server, _, router = await live(*acts)
    assert server.answers == [{"type": "lifespan.startup.failed", "message": "no"}]
    assert server.running == [False]
    assert router.stops == 1
    assert (server.error is None) == ("raise" not in acts)


async def test_an_app_that_returns_early_keeps_the_router_until_the_server_stops() -> None:
    server, _, router = await live("receive", "startup.complete")
    assert server.answers == [COMPLETE, SHUTDOWN_COMPLETE]
    assert server.running == [True, False]
    assert router.stops == 1


async def test_a_failed_shutdown_is_told_when_the_router_has_closed() -> None:
    server, _, router = await live("receive", "startup.complete", "receive", "shutdown.failed")
    assert server.answers == [COMPLETE, {"type": "lifespan.shutdown.failed", "message": "no"}]
    assert server.running == [True, False]
    assert router.stops == 1


@pytest.mark.parametrize("says", [("shutdown.failed",), ()])
async def test_a_crash_on_shutdown_closes_the_router_and_reaches_the_server(
    says: tuple[str, ...],
) -> None:
    server, _, router = await live("receive", "startup.complete", "receive", *says, "raise")
    assert [answer["type"] for answer in server.answers[1:]] == [f"lifespan.{s}" for s in says]
    assert router.stops == 1
    assert str(server.error) == "the app broke"


async def test_a_crash_in_between_leaves_the_router_running_until_the_server_stops(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server, _, router = await live("receive", "startup.complete", "raise")
    assert server.answers == [COMPLETE]
    assert router.stops == 1
    assert str(server.error) == "the app broke"
    assert server._asked == []
    assert "the app's lifespan ended with an error" in caplog.text


async def test_a_router_that_does_not_start_stops_the_server_with_its_reason() -> None:
    router = FakeRouter(start_error=ConfigError("models_dir 'x' does not exist"))
    server, app, _ = await live(*NORMAL, router=router)
    reason = "models_dir 'x' does not exist"
    assert server.answers == [{"type": "lifespan.startup.failed", "message": reason}]
    assert app.heard == []
    assert server.error is None


@pytest.mark.parametrize(
    ("error", "traced"), [(ConfigError("it is wrong"), False), (RuntimeError("it is wrong"), True)]
)
async def test_a_wrong_option_is_logged_in_one_line_and_the_unexpected_with_a_traceback(
    caplog: pytest.LogCaptureFixture, error: Exception, traced: bool
) -> None:
    await live(*NORMAL, router=FakeRouter(start_error=error))
    [record] = [each for each in caplog.records if each.name == "llm_router_mw.asgi"]
    assert record.getMessage() == "the router could not be run: it is wrong"
    assert bool(record.exc_info) is traced


async def test_a_router_that_does_not_stop_is_a_failed_shutdown() -> None:
    router = FakeRouter(stop_error=RuntimeError("it clings"))
    server, _, _ = await live(*NORMAL, router=router)
    failed = {"type": "lifespan.shutdown.failed", "message": "it clings"}
    assert server.answers == [COMPLETE, failed]


async def test_a_router_that_runs_already_is_neither_started_nor_stopped() -> None:
    router = FakeRouter()
    async with router:
        server, _, _ = await live(*NORMAL, router=router)
        assert router.running
        assert router.starts == 1
    assert server.answers == [COMPLETE, SHUTDOWN_COMPLETE]


async def test_two_nested_routers_both_live() -> None:
    inner, outer = FakeRouter(), FakeRouter()
    app = App(inner, *NORMAL)
    state: dict[str, Any] = {}
    both = LLMRouterMiddleware(
        LLMRouterMiddleware(app, router=inner, prefix="/a"), router=outer, prefix="/b"
    )
    server = await Server(outer, state=state).live(both)
    assert server.answers == [COMPLETE, SHUTDOWN_COMPLETE]
    assert server.running == [True, False]
    assert (inner.starts, inner.stops, outer.starts, outer.stops) == (1, 1, 1, 1)
    assert state["llm_router"] is inner


async def test_the_router_is_in_the_state_where_the_server_has_one() -> None:
    state: dict[str, Any] = {}
    _, _, router = await live(*NORMAL, state=state)
    assert state == {"llm_router": router}
    server, _, _ = await live(*NORMAL)
    assert "state" not in server.scope


async def test_cancelling_the_lifespan_closes_the_router() -> None:
    router = FakeRouter()
    server = Server(router)
    server.never_stops = True
    app = LLMRouterMiddleware(App(router, *NORMAL), router=router)
    async with anyio.create_task_group() as group:
        group.start_soon(app, server.scope, server.receive, server.send)
        await anyio.wait_all_tasks_blocked()
        assert router.running
        group.cancel_scope.cancel()
    assert not router.running


# The same, with real frameworks


@asynccontextmanager
async def nothing(app: Any) -> AsyncIterator[dict[str, str]]:
    yield {"mine": "kept"}


async def state_of(request: Request) -> JSONResponse:
    state = request.scope["state"]
    return JSONResponse(
        {"mine": state["mine"], "router": state["llm_router"] is request.scope["llm_router"]}
    )


async def test_a_starlette_app_keeps_its_lifespan_and_its_state() -> None:
    router = FakeRouter()
    app = Starlette(routes=[Route("/state", state_of)], lifespan=nothing)
    app.add_middleware(LLMRouterMiddleware, router=router)
    with TestClient(app) as client:
        assert client.get("/state").json() == {"mine": "kept", "router": True}
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
        assert router.running
    assert router.stops == 1


async def test_a_mounted_app_lives_with_its_host_through_its_own_lifespan() -> None:
    router = FakeRouter()
    llm = LLMRouterApp(router=router)
    host = Starlette(routes=[Mount("/llm", llm)], lifespan=llm.lifespan)
    with TestClient(host) as client:
        assert router.running
        assert client.get("/llm/v1/models").status_code == 200
        assert client.get("/llm/other").json()["error"]["type"] == "not_found_error"
        assert client.get("/v1/models").status_code == 404
    assert router.stops == 1


async def test_an_app_of_its_own_has_a_lifespan_of_its_own() -> None:
    router = FakeRouter()
    with TestClient(LLMRouterApp(router=router)) as client:
        assert client.get("/v1/models").status_code == 200
        assert router.running
    assert router.stops == 1
    assert router.starts == 1
