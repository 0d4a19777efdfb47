"""An app in two web processes with one router for both: each model is loaded once.

Run:  MODELS_DIR=models uvicorn --app-dir examples --workers 2 --port 8080 shared_app:app
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/ask/guide?question=What+is+a+lease'
      curl localhost:8080/loaded
With ``--reload`` instead of ``--workers 2`` the models stay loaded while the app changes.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llm_router_mw import LLMRouterError, LLMRouterMiddleware


async def ask(request: Request) -> Response:
    """Let a model answer; the lease is the host's, which knows all of the web processes."""
    question = {"role": "user", "content": request.query_params["question"]}
    try:
        async with request.scope["llm_router"].acquire(request.path_params["model"]) as llm:
            reply = await llm.chat([question], max_tokens=200)
    except LLMRouterError as error:
        return JSONResponse({"error": error.message}, error.status)
    return JSONResponse({"answer": reply.text, "answered_by": os.getpid()})


async def loaded(request: Request) -> Response:
    """Say what is loaded, whoever asked for it."""
    return JSONResponse({view.id: view.status for view in request.scope["llm_router"].models()})


app = Starlette(routes=[Route("/ask/{model}", ask), Route("/loaded", loaded)])
app.add_middleware(
    LLMRouterMiddleware,
    mode="shared",
    models_dir=os.environ.get("MODELS_DIR", "models"),
    # For so long the models wait for a web process after the last one has gone.
    shared_grace_seconds=float(os.environ.get("GRACE_SECONDS", "30")),
)
