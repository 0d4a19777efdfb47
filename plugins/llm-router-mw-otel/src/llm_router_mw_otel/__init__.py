"""OpenTelemetry spans of llm-router-mw, as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace

from llm_router_mw import __version__
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw_otel.requests import RequestSpans
from llm_router_mw_otel.stages import StageSpans
from llm_router_mw_otel.waiting import Waiting

if TYPE_CHECKING:
    from llm_router_mw.protocols import Observer, RequestGuard

__all__ = ["OtelPlugin"]


class OtelPlugin:
    """Of each router: the spans of its requests, and those of what happens to its models."""

    llm_router_api = 1

    def __init__(self) -> None:
        # Of the global provider, also of one that the app sets only later.
        tracer = trace.get_tracer("llm_router_mw", __version__)
        waiting = Waiting()
        self._stages = StageSpans(tracer, waiting)
        self._requests = RequestSpans(tracer, waiting, self._stages)

    @hookimpl
    def llm_router_register_observers(self) -> list[Observer]:
        return [self._stages]

    @hookimpl(tryfirst=True)  # so that requests which other guards refuse have spans too
    def llm_router_register_request_guards(self) -> list[RequestGuard]:
        return [self._requests]
