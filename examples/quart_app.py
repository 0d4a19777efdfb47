"""A Quart app with the router in front, served by Hypercorn.

Run:  MODELS_DIR=models PYTHONPATH=examples hypercorn --bind 127.0.0.1:8080 quart_app:app
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/ask/guide?question=What+is+a+lease'
"""

import os
from typing import Any

from quart import Quart, request

from llm_router_mw import LLMRouterError, LLMRouterMiddleware, get_router

app = Quart(__name__)


@app.get("/ask/<model>")
async def ask(model: str) -> dict[str, Any]:
    """Let a model answer; while it is held it cannot be evicted."""
    async with get_router(request).acquire(model) as llm:
        messages = [{"role": "user", "content": request.args["question"]}]
        reply = await llm.chat(messages, max_tokens=200)
    return {"answer": reply.text, "tokens": reply.usage.completion_tokens}


@app.errorhandler(LLMRouterError)
async def refuse(error: LLMRouterError) -> tuple[dict[str, str], int]:
    """Answer with what the router's error says: an unknown model is a 404."""
    return {"error": error.message}, error.status


models_dir = os.environ.get("MODELS_DIR", "models")
app.asgi_app = LLMRouterMiddleware(app.asgi_app, models_dir=models_dir)  # type: ignore
