"""A Starlette app that serves its models to clients and uses one itself.

Run:  MODELS_DIR=models uvicorn --app-dir examples --port 8080 starlette_app:app
Ask:  curl localhost:8080/v1/models
      curl localhost:8080/summarise/guide -d 'What is a lease?'
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_router_mw import LLMRouterError, LLMRouterMiddleware, get_router


async def summarise(request: Request) -> Response:
    """Let a model work on the body, without HTTP; while it is held it cannot be evicted."""
    text = (await request.body()).decode()
    async with get_router(request).acquire(request.path_params["model"]) as llm:
        reply = await llm.chat([{"role": "user", "content": text}], max_tokens=200)
    return JSONResponse({"summary": reply.text, "tokens": reply.usage.completion_tokens})


async def refuse(request: Request, error: Exception) -> Response:
    """Answer with what the router's error says: an unknown model is a 404."""
    assert isinstance(error, LLMRouterError)
    return JSONResponse({"error": error.message}, error.status)


app = Starlette(
    routes=[Route("/summarise/{model}", summarise, methods=["POST"])],
    exception_handlers={LLMRouterError: refuse},
)
app.add_middleware(LLMRouterMiddleware, models_dir=os.environ.get("MODELS_DIR", "models"))
