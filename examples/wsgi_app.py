"""A WSGI app without a framework, with the router in front; served by one sync worker.

Run:  MODELS_DIR=models gunicorn --chdir examples --bind 127.0.0.1:8080 wsgi_app:app
Ask:  curl localhost:8080/v1/models
      curl 'localhost:8080/guide?What+is+a+lease'
"""

import os
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_plus

from llm_router_mw import LLMRouterError, LLMRouterWSGIMiddleware, get_sync_router


def ask(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Let the model that the path names answer the query."""
    messages = [{"role": "user", "content": unquote_plus(environ["QUERY_STRING"])}]
    try:
        with get_sync_router(environ).acquire(environ["PATH_INFO"].lstrip("/")) as llm:
            status, text = HTTPStatus.OK, llm.chat(messages, max_tokens=200).text
    except LLMRouterError as error:
        status, text = HTTPStatus(error.status), error.message
    content_type = ("Content-Type", "text/plain; charset=utf-8")
    start_response(f"{status.value} {status.phrase}", [content_type])
    return [text.encode()]


app = LLMRouterWSGIMiddleware(ask, models_dir=os.environ.get("MODELS_DIR", "models"))
