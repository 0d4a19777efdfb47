"""Contracts between the floors, and the shapes of what plugins supply.

Doors and dialects depend on :class:`RouterContract`, not on a class: the router may live in this
loop, in another thread or, later, in another process.
"""

from llm_router_mw.protocols.chat import ChatFormat, ChatParser, PreparedPrompt
from llm_router_mw.protocols.clock import Clock
from llm_router_mw.protocols.engine import EngineFactory, EngineInstance, ExitReport, SleepReport
from llm_router_mw.protocols.eviction import (
    HEAT_HALF_LIFE_SECONDS,
    Candidate,
    EvictionPolicy,
    Shortfall,
)
from llm_router_mw.protocols.guard import GuardedRequest, RequestGuard, RequestOutcome
from llm_router_mw.protocols.memory import (
    DeviceProbe,
    Estimator,
    LearningEstimator,
    MemoryAccount,
    MemoryHolder,
    PreparingEstimator,
)
from llm_router_mw.protocols.model_source import ModelSource
from llm_router_mw.protocols.observer import Observer
from llm_router_mw.protocols.placement import PlacementPolicy
from llm_router_mw.protocols.resolver import ModelResolver
from llm_router_mw.protocols.route_group import Access, RouteGroup
from llm_router_mw.protocols.router import LeaseContract, OnQueued, RouterContract, StartableRouter
from llm_router_mw.protocols.sleep import (
    InstanceHandle,
    KeepsSequences,
    SleepHandler,
    SnapshotStore,
)
from llm_router_mw.protocols.stream import DeltaStream

__all__ = [
    "HEAT_HALF_LIFE_SECONDS",
    "Access",
    "Candidate",
    "ChatFormat",
    "ChatParser",
    "Clock",
    "DeltaStream",
    "DeviceProbe",
    "EngineFactory",
    "EngineInstance",
    "Estimator",
    "EvictionPolicy",
    "ExitReport",
    "GuardedRequest",
    "InstanceHandle",
    "KeepsSequences",
    "LearningEstimator",
    "LeaseContract",
    "MemoryAccount",
    "MemoryHolder",
    "ModelResolver",
    "ModelSource",
    "Observer",
    "OnQueued",
    "PlacementPolicy",
    "PreparedPrompt",
    "PreparingEstimator",
    "RequestGuard",
    "RequestOutcome",
    "RouteGroup",
    "RouterContract",
    "Shortfall",
    "SleepHandler",
    "SleepReport",
    "SnapshotStore",
    "StartableRouter",
]
