"""Spans of requests: how long they waited for their models, and how long they had them."""

from __future__ import annotations

import time

from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from llm_router_mw.errors import RequestLeftError
from llm_router_mw.protocols import GuardedRequest, RequestOutcome
from llm_router_mw.types import Usage
from llm_router_mw_otel.stages import StageSpans
from llm_router_mw_otel.waiting import OpenRequest, Waiting

_NS = 1_000_000_000


class RequestSpans:
    """A guard that refuses nobody and makes spans."""

    name = "otel"

    def __init__(self, tracer: Tracer, waiting: Waiting, stages: StageSpans) -> None:
        self._tracer = tracer
        self._waiting = waiting
        self._stages = stages

    async def before(self, request: GuardedRequest) -> None:
        """Begin the spans of *request*, below the one that is current where it comes from."""
        now = time.time_ns()
        attributes = _attributes(request)
        span = self._tracer.start_span("llm_router.request", attributes=attributes, start_time=now)
        queue = self._tracer.start_span(
            "llm_router.queue", set_span_in_context(span, Context()), start_time=now
        )
        for awaited in self._stages.awaited(request.models):
            queue.add_link(awaited.get_span_context())
        self._waiting.add(OpenRequest(request, span, queue, now))

    async def after(self, request: GuardedRequest, outcome: RequestOutcome) -> None:
        """End the spans of *request*, at the times at which it was served and over."""
        opened = self._waiting.remove(request.id)
        span = opened.span
        served_at = opened.began_ns + int(outcome.waited_seconds * _NS)
        over_at = served_at + int(outcome.held_seconds * _NS)
        opened.queue.end(served_at)
        span.set_attribute("llm_router.status", outcome.status)
        if outcome.status == "served":
            used = _used(outcome.usage)
            self._tracer.start_span(
                "llm_router.serve",
                set_span_in_context(span, Context()),
                attributes=used,
                start_time=served_at,
            ).end(over_at)
            span.set_attributes(used)
        failure = outcome.failure
        if failure is not None:
            span.set_attribute("error.type", failure.kind)
            if failure.kind != RequestLeftError.__name__:  # that one is nobody's fault
                span.set_status(Status(StatusCode.ERROR, failure.message))
        span.end(over_at)


def _attributes(request: GuardedRequest) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "gen_ai.request.model": request.models[0],
        "llm_router.models": request.models,
        "llm_router.priority": request.priority,
    }
    if request.owner:
        attributes["llm_router.owner"] = request.owner
    return attributes


def _used(usage: Usage) -> dict[str, AttributeValue]:
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
    }
