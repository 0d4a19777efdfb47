"""The router: it feeds the scheduler, drives the workers and speaks for them."""

from llm_router_mw.router.lease import Lease
from llm_router_mw.router.local import Router
from llm_router_mw.router.on_demand import OnDemandRouter
from llm_router_mw.router.sync import SyncLease, SyncRouter
from llm_router_mw.router.thread import RouterThread

__all__ = ["Lease", "OnDemandRouter", "Router", "RouterThread", "SyncLease", "SyncRouter"]
