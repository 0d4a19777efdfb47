"""Spans of what happens to instances: downloads, loads, sleep, evictions, ends."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from llm_router_mw.types import InstanceKey, InstanceState, RouterEvent
from llm_router_mw_otel.waiting import Waiting

_LASTING = {
    InstanceState.DOWNLOADING: "download",
    InstanceState.LOADING: "load",
    InstanceState.WAKING: "wake",
    InstanceState.DRAINING: "drain",
    InstanceState.FALLING_ASLEEP: "sleep",
    InstanceState.STOPPING: "stop",
}
"""States that an instance goes through, and what its spans are called meanwhile."""
_AWAITED = frozenset({InstanceState.DOWNLOADING, InstanceState.LOADING, InstanceState.WAKING})
"""What requests for the instance itself wait for."""
_CHANGES = frozenset({"status", "evicted", "load_failed", "worker_died"})
"""Events that tell of a new state."""
_TROUBLE = frozenset({"load_failed", "worker_died"})


class Stage(Struct):
    """A state that an instance is going through."""

    state: InstanceState
    span: Span
    models: set[str]
    """All names of the instance that have been told of."""


class StageSpans:
    """An observer that makes spans."""

    name = "otel"

    def __init__(self, tracer: Tracer, waiting: Waiting) -> None:
        self._tracer = tracer
        self._waiting = waiting
        self._stages: dict[InstanceKey, Stage] = {}

    def on_event(self, event: RouterEvent) -> None:
        """Begin and end spans as *event* says."""
        if event.kind in _CHANGES and event.state is not None and event.models:
            self._change(event, event.state, event.models[0].model.instance_key)
        elif event.kind == "queued":
            self._explain(event)
        elif event.kind == "handler_failed":
            self._mishap(event)

    def awaited(self, models: Collection[str]) -> list[Span]:
        """Return the spans of what a request for *models* waits for."""
        return [
            stage.span
            for stage in self._stages.values()
            if stage.state in _AWAITED and not stage.models.isdisjoint(models)
        ]

    def _change(self, event: RouterEvent, state: InstanceState, key: InstanceKey) -> None:
        stage = self._stages.get(key)
        if stage is not None and stage.state is state:
            # The same, told of another model that shares the instance.
            if event.model not in stage.models:
                stage.models.add(event.model)
                self._link((event.model,), stage)
            return
        if stage is not None:
            del self._stages[key]
            _end(stage.span, event)
        elif event.kind == "worker_died":
            self._mishap(event)
        if state in _LASTING:
            self._begin(event, state, key)

    def _begin(self, event: RouterEvent, state: InstanceState, key: InstanceKey) -> None:
        name = "evict" if event.kind == "evicted" else _LASTING[state]
        # An eviction is for others; what gets ready is for its own requests.
        models = tuple(event.data.get("for", ())) if event.kind == "evicted" else (event.model,)
        parent = None
        if event.kind == "evicted" or state in _AWAITED:
            parent = next((each.queue for each in self._waiting.wanting(models)), None)
        stage = self._stages[key] = Stage(state, self._start(name, event, parent), {event.model})
        if event.kind == "evicted":
            stage.span.set_attribute("llm_router.for", models)
        self._link(models, stage, beside=parent)

    def _link(self, models: Collection[str], stage: Stage, beside: Span | None = None) -> None:
        """Let the requests for *models* show that they wait for *stage*."""
        if stage.state in _AWAITED:
            for waiting in self._waiting.wanting(models):
                if waiting.queue is not beside:
                    waiting.queue.add_link(stage.span.get_span_context())

    def _explain(self, event: RouterEvent) -> None:
        for waiting in self._waiting.wanting((event.model,)):
            if not waiting.is_explained:  # each is told of once, in their order
                waiting.is_explained = True
                waiting.queue.set_attribute("llm_router.reason", event.reason)
                return

    def _mishap(self, event: RouterEvent) -> None:
        """Note what takes no time."""
        span = self._start(event.kind, event, None)
        span.set_status(Status(StatusCode.ERROR, event.reason))
        span.end()

    def _start(self, name: str, event: RouterEvent, parent: Span | None) -> Span:
        attributes: dict[str, AttributeValue] = {"llm_router.model": event.model}
        if event.reason:
            attributes["llm_router.reason"] = event.reason
        if event.state is not None:
            attributes["llm_router.state"] = event.state.value
        # Never of the ambient context: it may be that of any request, or of the start of the app.
        context = Context() if parent is None else set_span_in_context(parent, Context())
        return self._tracer.start_span(f"llm_router.{name}", context, attributes=attributes)


def _end(span: Span, event: RouterEvent) -> None:
    """End *span*: *event* says what came of it."""
    if event.kind in _TROUBLE:
        span.set_status(Status(StatusCode.ERROR, event.reason))
    elif event.state is InstanceState.LOADED:
        [view] = event.models
        span.set_attribute("llm_router.memory_bytes", sum(view.memory.values()))
        span.set_attribute("llm_router.degraded", view.degraded)
    span.end()
