"""The decisions: a sans-I/O scheduler, its events and its actions."""

from llm_router_mw.scheduler import actions, events
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.scheduler import Scheduler
from llm_router_mw.scheduler.terms import Companion, Terms

__all__ = ["Companion", "Instance", "Limits", "Scheduler", "Terms", "actions", "events"]
