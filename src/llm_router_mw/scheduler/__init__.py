"""The decisions: a sans-I/O scheduler, its events and its actions."""

from llm_router_mw.scheduler import actions, events
from llm_router_mw.scheduler.scheduler import Scheduler
from llm_router_mw.scheduler.state import Instance

__all__ = ["Instance", "Scheduler", "actions", "events"]
