"""One app in several frameworks: what middleware around it might disturb.

``/state`` shows what its lifespan has kept, ``/events`` are server-sent events of which the second
waits for the stage's gate, ``/later`` has a task after its answer, ``/broken`` raises, and
``/echo`` is a websocket.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, FastAPI
from fastapi import Request as FastAPIRequest
from fastapi import WebSocket as FastAPIWebSocket
from fastapi.responses import StreamingResponse as FastAPIStreaming
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import WebSocket as LitestarWebSocket
from litestar import get as litestar_get
from litestar import websocket as litestar_websocket
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.datastructures import State
from litestar.response import Response as LitestarResponse
from litestar.response import Stream
from quart import Quart
from quart import Response as QuartResponse
from quart import websocket as quart_websocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from tests.support.serving import Gate

EVENTS = "text/event-stream"
SUBPROTOCOL = "echo.v1"


class Stage:
    """What an app's handlers and the test tell each other."""

    def __init__(self) -> None:
        self.gate = Gate()
        """The second event waits for it."""
        self.after = threading.Event()
        """The task after the answer has run."""

    async def events(self) -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await self.gate()
        yield b"data: second\n\n"

    async def later(self) -> None:
        """Run when the answer is with the client; only then the test opens the gate."""
        await self.gate()
        self.after.set()


def starlette_app(stage: Stage) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"mine": "kept"}

    async def state(request: Request) -> JSONResponse:
        return JSONResponse({"mine": request.state.mine})

    async def events(request: Request) -> StreamingResponse:
        return StreamingResponse(stage.events(), media_type=EVENTS)

    async def later(request: Request) -> PlainTextResponse:
        return PlainTextResponse("done", background=BackgroundTask(stage.later))

    async def broken(request: Request) -> PlainTextResponse:
        raise ZeroDivisionError("the app broke")

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=SUBPROTOCOL)
        async for text in websocket.iter_text():
            await websocket.send_text(f"{text}, {websocket.state.mine}")

    pages = {"/state": state, "/events": events, "/later": later, "/broken": broken}
    routes = [Route(path, page) for path, page in pages.items()]
    return Starlette(routes=[*routes, WebSocketRoute("/echo", echo)], lifespan=lifespan)


def fastapi_app(stage: Stage) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        yield {"mine": "kept"}

    app = FastAPI(lifespan=lifespan)

    @app.get("/state")
    async def state(request: FastAPIRequest) -> dict[str, str]:
        return {"mine": request.state.mine}

    @app.get("/events")
    async def events() -> FastAPIStreaming:
        return FastAPIStreaming(stage.events(), media_type=EVENTS)

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> PlainTextResponse:
        tasks.add_task(stage.later)
        return PlainTextResponse("done")

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("the app broke")

    @app.websocket("/echo")
    async def echo(websocket: FastAPIWebSocket) -> None:
        await websocket.accept(subprotocol=SUBPROTOCOL)
        async for text in websocket.iter_text():
            await websocket.send_text(f"{text}, {websocket.state.mine}")

    return app


def litestar_app(stage: Stage) -> ASGIApp:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.mine = "kept"
        yield

    @litestar_get("/state")
    async def state(request: LitestarRequest[Any, Any, State]) -> dict[str, str]:
        return {"mine": request.app.state.mine}

    @litestar_get("/events")
    async def events() -> Stream:
        return Stream(stage.events(), media_type=EVENTS)

    @litestar_get("/later")
    async def later() -> LitestarResponse[str]:
        return LitestarResponse("done", background=LitestarTask(stage.later))

    @litestar_get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("the app broke")

    @litestar_websocket("/echo")
    async def echo(socket: LitestarWebSocket[Any, Any, State]) -> None:
        await socket.accept(subprotocols=SUBPROTOCOL)
        async for text in socket.iter_data("text"):
            await socket.send_text(f"{text}, {socket.app.state.mine}")

    return Litestar([state, events, later, broken, echo], lifespan=[lifespan])  # type: ignore[return-value]


def quart_app(stage: Stage) -> ASGIApp:
    app = Quart("app")
    kept: dict[str, str] = {}

    @app.before_serving
    async def start() -> None:
        kept["mine"] = "kept"

    @app.get("/state")
    async def state() -> dict[str, str]:
        return kept

    @app.get("/events")
    async def events() -> QuartResponse:
        return QuartResponse(stage.events(), content_type=EVENTS)

    @app.get("/later")
    async def later() -> str:
        app.add_background_task(stage.later)
        return "done"

    @app.get("/broken")
    async def broken() -> str:
        raise ZeroDivisionError("the app broke")

    @app.websocket("/echo")
    async def echo() -> None:
        await quart_websocket.accept(subprotocol=SUBPROTOCOL)
        while True:
            text = str(await quart_websocket.receive())
            await quart_websocket.send(f"{text}, {kept['mine']}")

    return app  # type: ignore[return-value]


FRAMEWORKS = [starlette_app, fastapi_app, litestar_app, quart_app]
