"""The example server: an ASGI app with the router around it, served by uvicorn.

Run:  MODELS_DIR=models python examples/uvicorn_server.py
Ask:  curl localhost:8080/v1/models
The port is 8080, or what PORT says.
"""

import os

import uvicorn
from starlette.types import Receive, Scope, Send

from llm_router_mw import LLMRouterMiddleware


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Any ASGI app; this one knows a single answer."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"Hello from the app.\n"})


app = LLMRouterMiddleware(hello, models_dir=os.environ.get("MODELS_DIR", "models"))

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(os.environ.get("PORT", "8080")),
        # Answers that still run when the server stops have five seconds to finish.
        timeout_graceful_shutdown=5,
    )
