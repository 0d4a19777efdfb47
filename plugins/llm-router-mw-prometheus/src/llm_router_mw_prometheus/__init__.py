"""Metrics of llm-router-mw for Prometheus, as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_router_mw.hookspecs import hookimpl
from llm_router_mw_prometheus.counts import Counts
from llm_router_mw_prometheus.routes import MetricsRoutes

if TYPE_CHECKING:
    from llm_router_mw.protocols import Observer, RequestGuard, RouteGroup

__all__ = ["PrometheusPlugin"]


class PrometheusPlugin:
    """Of each router: what it counted, and the route that shows it."""

    llm_router_api = 1

    def __init__(self) -> None:
        self._counts = Counts()

    @hookimpl
    def llm_router_register_observers(self) -> list[Observer]:
        return [self._counts]

    @hookimpl
    def llm_router_register_request_guards(self) -> list[RequestGuard]:
        return [self._counts]

    @hookimpl
    def llm_router_register_routes(self) -> list[RouteGroup]:
        return [MetricsRoutes(self._counts)]
