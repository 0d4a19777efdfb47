"""The demo's app: an ordinary Starlette app with two small models behind it.

It is what an app of your own would look like: pages, one line that mounts the router, and a page
that asks a model without HTTP.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import llm_router_mw
from llm_router_mw.asgi import LLMRouterMiddleware
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.router import Router

_HOME = """\
This page belongs to the demo's own app; the router answers what is under /v1/.

/hello                              another page of the app
/ask?q=What+is+a+lease              the app's code asks the model "guide", without HTTP
/v1/models                          the models and their states
/v1/chat/completions, POST          ask "guide" or "companion"; one is loaded at a time
"""


def demo_models() -> dict[str, Path]:
    """Return the models that ship inside the package, by id."""
    folder = Path(llm_router_mw.__file__).parent / "demo_models"
    return {path.stem: path for path in sorted(folder.glob("*.gguf"))}


async def home(request: Request) -> Response:
    """Say what there is to try."""
    return PlainTextResponse(_HOME)


async def hello(request: Request) -> Response:
    """Answer as any app does: the router lets the request through untouched."""
    return PlainTextResponse("Hello from the app itself.\n")


async def ask(request: Request) -> Response:
    """Let a model answer the question ``q``; nothing can evict it meanwhile."""
    question = request.query_params.get("q") or "What is a lease?"
    async with request.scope["llm_router"].acquire("guide") as llm:
        reply = await llm.chat(
            [{"role": "user", "content": question}], max_tokens=200, temperature=0
        )
    return JSONResponse({"question": question, "answer": reply.text})


async def refuse(request: Request, error: Exception) -> Response:
    """Tell the visitor what the router's error says."""
    assert isinstance(error, LLMRouterError)
    return PlainTextResponse(f"{error.message}\n", error.status)


def create_app(router: Router) -> Starlette:
    """Return the app, with *router* in front of it."""
    app = Starlette(
        routes=[Route("/", home), Route("/hello", hello), Route("/ask", ask)],
        exception_handlers={LLMRouterError: refuse},
    )
    app.add_middleware(LLMRouterMiddleware, router=router)
    return app
