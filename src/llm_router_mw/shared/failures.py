"""Errors of the host as its web processes may see them."""

from __future__ import annotations

import logging

import msgspec

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.types import Failure

logger = logging.getLogger("llm_router_mw.shared")


def failure_of(error: Exception) -> Failure:
    """Return what a web process is told of *error*; one that nobody expected goes to the log."""
    if not isinstance(error, LLMRouterError):
        logger.error("a request of a web process failed", exc_info=error)
        error = LLMRouterError(
            "the shared router failed in a way that nobody expected; its log says more"
        )
    failure = error.to_failure()
    try:
        msgspec.msgpack.encode(failure)
    except (TypeError, ValueError, OverflowError):  # a plugin's error may carry anything
        failure = msgspec.structs.replace(failure, fields={})
    return failure
