"""Which sets there are now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from llm_router_mw_warmset.options import WarmSet


class Schedule:
    """The *sets* of a router, by the local time that *now* tells."""

    def __init__(self, sets: Mapping[str, WarmSet], now: Callable[[], datetime]) -> None:
        self.sets = sets
        self._now = now

    def active(self) -> dict[str, WarmSet]:
        """Return the sets whose time it is."""
        now = self._now()
        return {name: each for name, each in self.sets.items() if _is_active(each, now)}

    def models(self) -> frozenset[str]:
        """Return the ids of the models of all active sets."""
        return frozenset(model for each in self.active().values() for model in each.models)

    def devices(self) -> frozenset[str]:
        """Return the devices of all active sets."""
        return frozenset(device for each in self.active().values() for device in each.devices)


def _is_active(each: WarmSet, now: datetime) -> bool:
    begins, ends = each.hours()
    today, yesterday = now.weekday(), (now - timedelta(days=1)).weekday()
    days, clock = each.weekdays(), now.time()
    if begins < ends:
        return today in days and begins <= clock < ends
    # Over midnight, or a whole day: its second part belongs to the day on which it began.
    return (today in days and clock >= begins) or (yesterday in days and clock < ends)
