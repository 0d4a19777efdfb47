"""What can be said about sets."""

from __future__ import annotations

import re
from datetime import time

from msgspec import Struct

from llm_router_mw.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


class WarmSet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models that are kept together for some hours of the day."""

    models: tuple[str, ...]
    """Ids."""
    begins: str = "00:00"
    ends: str = "00:00"
    """The same as ``begins`` is a whole day."""
    days: str = "mon-sun"
    devices: tuple[str, ...] = ()
    """Where others shall not go if they can go elsewhere."""
    preload: bool = True

    def __post_init__(self) -> None:
        self.hours()
        self.weekdays()

    def hours(self) -> tuple[time, time]:
        """Return when it begins and ends.

        Raises:
            ConfigError: that is no time.
        """
        return _time(self.begins), _time(self.ends)

    def weekdays(self) -> frozenset[int]:
        """Return the days on which it begins; Monday is 0.

        Raises:
            ConfigError: those are no days.
        """
        found: set[int] = set()
        for part in self.days.lower().replace(" ", "").split(","):
            first, dash, last = part.partition("-")
            if first not in DAYS or (dash and last not in DAYS):
                raise ConfigError(f"warmset: {part!r} is no day; write mon, or mon-fri")
            begin, end = DAYS.index(first), DAYS.index(last or first)
            length = (end - begin) % len(DAYS)
            found.update((begin + day) % len(DAYS) for day in range(length + 1))
        return frozenset(found)


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``plugin_options["warmset"]``."""

    sets: dict[str, WarmSet] = {}


def _time(text: str) -> time:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ConfigError(f"warmset: {text!r} is no time; write it as 18:30")
    return time(int(match[1]), int(match[2]))
