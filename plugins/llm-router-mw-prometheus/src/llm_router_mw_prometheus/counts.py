"""What has happened in a router, counted as it happens."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from llm_router_mw.protocols import GuardedRequest, RequestOutcome
from llm_router_mw.types import InstanceState, RouterEvent

_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Bounds of the histograms: from a model that is there to one that has to be loaded slowly."""


class Counts:
    """An observer, and a guard that refuses nobody."""

    name = "prometheus"

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"llm_router_{name}", text, ("model", *labels), registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(
                f"llm_router_{name}", text, ("model",), registry=registry, buckets=_SECONDS
            )

        self._requests = counter("requests", "Requests that are over", "status")
        self._tokens = counter("tokens", "Tokens", "kind")
        self._refused = counter("requests_refused", "Requests that the scheduler refused")
        self._wakes = counter("wakes", "Times that a model woke")
        self._loads = counter("loads", "Loads that were begun")
        self._by_event = {
            "evicted": counter("evictions", "Times that a model made room for another"),
            "load_failed": counter("load_failures", "Loads that failed"),
            "worker_died": counter("worker_deaths", "Crashes of workers"),
            "refused": self._refused,
        }
        self._by_state = {InstanceState.LOADING: self._loads, InstanceState.WAKING: self._wakes}
        self._waits = histogram("wait_seconds", "How long requests waited for their model")
        self._helds = histogram("held_seconds", "How long requests had their model")

    def on_event(self, event: RouterEvent) -> None:
        """Count *event*."""
        if event.kind in self._by_event:
            self._by_event[event.kind].labels(event.model).inc()
        elif event.kind == "status" and event.state in self._by_state:
            self._by_state[event.state].labels(event.model).inc()

    async def before(self, request: GuardedRequest) -> None:
        """Let *request* pass."""

    async def after(self, request: GuardedRequest, outcome: RequestOutcome) -> None:
        """Count what became of *request*."""
        model = request.models[0]
        self._requests.labels(model, outcome.status).inc()
        self._waits.labels(model).observe(outcome.waited_seconds)
        if outcome.status != "served":
            return
        self._helds.labels(model).observe(outcome.held_seconds)
        usage = outcome.usage
        for kind, tokens in (
            ("prompt", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("completion", usage.completion_tokens),
        ):
            self._tokens.labels(model, kind).inc(tokens)
