"""``GET /metrics``."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from llm_router_mw.protocols import Access, RouterContract
from llm_router_mw.types import InstanceState
from llm_router_mw_prometheus.counts import Counts


class MetricsRoutes:
    """What was counted, and how the router is now."""

    name = "prometheus"
    access: Access = "management"

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.routes: list[BaseRoute] = [Route("/metrics", self._metrics)]

    async def _metrics(self, request: Request) -> Response:
        now = CollectorRegistry()
        now.register(_State(request.scope["llm_router"]))
        text = generate_latest(self._counts.registry) + generate_latest(now)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})


class _State:
    """How the router is (a ``Collector``): a snapshot, which wakes nothing."""

    def __init__(self, router: RouterContract) -> None:
        self._router = router

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the gauges, and what the router counts itself."""
        states = _gauge("model_state", "1 for the state of the model", "model", "state")
        leases = _gauge("model_leases", "Requests that a model works on", "model")
        waiting = _gauge("model_waiting", "Requests that wait for a model", "model")
        memory = _gauge("model_memory_bytes", "What a model is charged", "model", "pool")
        for view in self._router.models():
            for state in InstanceState:
                states.add_metric([view.id, state.value], view.state is state)
            leases.add_metric([view.id], view.leases)
            waiting.add_metric([view.id], view.waiting)
            for pool, size in view.memory.items():
                memory.add_metric([view.id, pool], size)
        queue = _gauge("waiting", "Requests in the queue")
        overview = self._router.overview()
        queue.add_metric([], overview.waiting)
        failures = CounterMetricFamily(
            "llm_router_plugin_failures",
            "Failures of an object of a plugin while it worked",
            labels=["object"],
        )
        for name, count in overview.plugin_failures.items():
            failures.add_metric([name], count)
        yield from (states, leases, waiting, memory, queue, failures)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"llm_router_{name}", text, labels=labels)
