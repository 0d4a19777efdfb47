"""A Litestar app with the router around it, so that the server's lifespan starts both.

Run:  MODELS_DIR=models uvicorn --app-dir examples --port 8080 litestar_app:app
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/ask/guide?question=What+is+a+lease'
"""

import os
from typing import Any

from litestar import Litestar, Request, Response, get

from llm_router_mw import LLMRouterError, LLMRouterMiddleware, get_router


@get("/ask/{model:str}")
async def ask(model: str, question: str, request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Let a model answer; while it is held it cannot be evicted."""
    async with get_router(request).acquire(model) as llm:
        reply = await llm.chat([{"role": "user", "content": question}], max_tokens=200)
    return {"answer": reply.text, "tokens": reply.usage.completion_tokens}


def refuse(request: Request[Any, Any, Any], error: LLMRouterError) -> Response[dict[str, str]]:
    """Answer with what the router's error says: an unknown model is a 404."""
    return Response({"error": error.message}, status_code=error.status)


app = LLMRouterMiddleware(
    Litestar([ask], exception_handlers={LLMRouterError: refuse}),  # type: ignore[arg-type]
    models_dir=os.environ.get("MODELS_DIR", "models"),
)
