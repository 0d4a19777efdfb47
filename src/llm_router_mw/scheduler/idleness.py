"""What becomes of instances that nobody uses."""

from __future__ import annotations

import math
from collections.abc import Iterable

from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.queue import Queue
from llm_router_mw.scheduler.residents import Residents
from llm_router_mw.scheduler.states import SLEEPING
from llm_router_mw.scheduler.terms import Companion
from llm_router_mw.scheduler.timers import Timers
from llm_router_mw.types import Step


class Idleness:
    """Sends instances down whose time has come, with all that need them."""

    def __init__(self, residents: Residents, queue: Queue, timers: Timers) -> None:
        self._residents = residents
        self._queue = queue
        self._timers = timers

    def watch(self, instance: Instance) -> None:
        """See that *instance* is looked at when its time has come, if it ever does."""
        deadline = instance.idle_deadline_seconds
        if deadline < math.inf:
            self._timers.ring(("idle", instance.key), deadline)

    def watch_company(self, companions: Iterable[Companion]) -> None:
        """See that those are looked at that stayed for somebody, who has gone."""
        for companion in companions:
            instance = self._residents.get(companion.instance)
            if instance is not None and instance.has_worker and not instance.leases:
                self.watch(instance)

    def has_been(self, instance: Instance, now: float) -> bool:
        """Look at *instance*, whose time may have come; return whether anybody goes."""
        if self._queue.wants(instance.key):
            return False  # kept for somebody who waits for more than this one
        step = _step(instance, now)
        if step is not None:
            return self._lower(instance, step, now)
        if instance.idle_deadline_seconds > now:
            # It was used meanwhile. What is past while it is busy is seen when it is idle again.
            self.watch(instance)
        return False

    def _lower(self, instance: Instance, step: Step, now: float) -> bool:
        """Send *instance* down to *step* with all that need it; not at all if one of them stays."""
        company = self._residents.company()
        steps = {instance: step}
        for each in company.of(instance) if company is not None else ():
            own_step = _step(each, now)
            if own_step is None or self._queue.wants(each.key):
                return False  # when it goes, this one is looked at again
            steps[each] = own_step
        for each, down in steps.items():
            idle_seconds = now - each.last_used_seconds
            self._residents.lower(each, down, f"idle for {idle_seconds:.1f} s")
        return True


def _step(instance: Instance, now: float) -> Step | None:
    """Return how far down *instance* goes now for being idle; None if it stays as it is."""
    is_sleeping = instance.state is SLEEPING
    if not instance.is_idle and not is_sleeping:
        return None
    if now >= instance.unload_at_seconds:
        return "stop"
    if now >= instance.sleep_at_seconds:
        return instance.terms.sleep_level
    return None
