"""Errors as clients see them: OpenAI's shape and llama-server's at once."""

from __future__ import annotations

import logging
from math import ceil
from typing import Any

from llm_router_mw.api.connection import Headers
from llm_router_mw.errors import (
    AuthenticationError,
    ContextExceededError,
    LLMRouterError,
    MethodNotAllowedError,
    ModelTooLargeError,
)

logger = logging.getLogger("llm_router_mw.api")


def as_problem(error: Exception) -> LLMRouterError:
    """Return the error that the client is told: *error* itself, or a plain sentence for one that
    was not foreseen. That one is logged with its traceback."""
    if isinstance(error, LLMRouterError):
        return error
    logger.error("a request failed unexpectedly", exc_info=error)
    return LLMRouterError("the server failed to handle the request; its log says why")


def problem_body(error: LLMRouterError) -> dict[str, Any]:
    """Return the JSON body that tells *error*."""
    about: dict[str, Any] = {
        "message": error.message,
        "type": error.error_type,
        "param": error.param,
        "code": error.code or error.status,
    }
    if isinstance(error, ContextExceededError):
        about |= {name: error.fields.get(name) for name in ("n_prompt_tokens", "n_ctx")}
    if isinstance(error, ModelTooLargeError):
        about["devices"] = error.fields.get("devices", {})
    return {"error": about}


def problem_headers(error: LLMRouterError) -> Headers:
    """Return the headers that go with *error*."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_seconds is not None:
        # Whole seconds, and never 0: that would ask for the next try at once.
        headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_seconds))))
    if isinstance(error, AuthenticationError):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowedError):
        headers.append((b"allow", error.fields["allow"].encode()))
    return headers
