"""One simulation: a trace, a machine and a policy in, figures out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.scheduler import Scheduler, events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.terms import OFF, Terms
from llm_router_mw.simulator.bound import Room, belady_loads, lower_bound
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.report import Report, make_report
from llm_router_mw.simulator.residence import Residence
from llm_router_mw.simulator.tally import Tally
from llm_router_mw.simulator.trace import ModelFacts, Trace
from llm_router_mw.simulator.world import Order, World
from llm_router_mw.types import SleepLevel, Step


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where a trace is played, and by which rules."""

    machine: Machine
    policy: EvictionPolicy
    limits: Limits = field(default_factory=lambda: Limits(models_max=0, max_queue=0))
    order: Order = "fair"
    closed_loop: bool = False
    """Whether each key waits for its answer before it asks again."""
    sleep_idle_seconds: float = OFF
    sleep_level: SleepLevel = "full"
    evict_to: Step = "stop"

    def terms(self, facts: ModelFacts) -> Terms:
        """Return what is said about a model."""
        return Terms(
            pinned=facts.pinned,
            sleep_idle_seconds=self.sleep_idle_seconds,
            sleep_level=self.sleep_level,
            evict_to=self.evict_to,
        )


def simulate(
    trace: Trace,
    settings: Settings,
    *,
    residence: Residence | None = None,
    recorder: Callable[[float, events.Event], None] | None = None,
) -> Report:
    """Play *trace* and return the figures.

    *residence* collects what was resident when; *recorder* is told every event with its time.

    Raises:
        ConfigError: a request in the trace cannot be understood.
    """
    world = World(
        trace,
        settings.machine,
        Scheduler(settings.policy, settings.limits),
        terms={name: settings.terms(facts) for name, facts in trace.models.items()},
        order=settings.order,
        closed_loop=settings.closed_loop,
        residence=residence,
        recorder=recorder,
    )
    tally = world.run()
    room = Room(
        [facts.size_bytes for facts in trace.models.values()],
        settings.machine.capacity_bytes,
        settings.limits.models_max,
    )
    return make_report(
        tally,
        policy=settings.policy.name,
        order=settings.order,
        bound=_bound(tally, room),
        belady=belady_loads(tally.sent_to, room),
    )


def _bound(tally: Tally, room: Room) -> int:
    longest = max(tally.waits, default=0.0)
    return lower_bound(tally.sent_at, tally.sent_to, room, longest)
