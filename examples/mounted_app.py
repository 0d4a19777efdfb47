"""A Starlette app that mounts the router below a path, behind its own authentication.

Run:  MODELS_DIR=models uvicorn --app-dir examples --port 8080 mounted_app:app
Ask:  curl -H 'X-User: me' localhost:8080/llm/v1/models
"""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_router_mw import LLMRouterApp


class OnlyKnownUsers:
    """Stands for the app's own authentication: what it refuses, the router never sees."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "x-user" not in Request(scope).headers:
            await PlainTextResponse("who are you?", 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def hello(request: Request) -> PlainTextResponse:
    """A page of the app."""
    return PlainTextResponse("Hello from the app.")


llm = LLMRouterApp(models_dir=os.environ.get("MODELS_DIR", "models"))
app = Starlette(
    routes=[Route("/", hello), Mount("/llm", llm)],
    lifespan=llm.lifespan,  # a mount gets none of its own
    middleware=[Middleware(OnlyKnownUsers)],
)
