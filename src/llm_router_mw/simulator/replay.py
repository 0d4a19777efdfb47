"""Plays recorded events through a new scheduler and says what it decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.simulator.event_trace import Setup
from llm_router_mw.types import InstanceKey


def replay(
    setup: Setup, policy: EvictionPolicy, recorded: Iterable[tuple[float, events.Event]]
) -> Iterator[tuple[float, events.Event, list[actions.Action]]]:
    """Return each event with its time and the actions that follow from it."""
    scheduler = Scheduler(policy, setup.limits)
    for at_seconds, event in recorded:
        yield at_seconds, event, scheduler.decide(event, at_seconds)


def told(at_seconds: float, event: events.Event, decided: Iterable[actions.Action]) -> str:
    """Return one step as lines for people."""
    lines = [f"{at_seconds:10.3f}  {_words(event)}"]
    lines += [f"            → {_words(action)}" for action in decided]
    return "\n".join(lines)


def _words(said: Any) -> str:
    """Return the class and the fields that say something."""
    fields = (
        f"{field.name}={_value(getattr(said, field.name))}"
        for field in msgspec.structs.fields(said)
        if field.required or getattr(said, field.name) != _default(field)
    )
    return f"{type(said).__name__}({', '.join(fields)})"


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _value(value: Any) -> str:
    if isinstance(value, InstanceKey):
        return str(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(k)}: {_value(v)}" for k, v in value.items()) + "}"
    return _words(value) if isinstance(value, msgspec.Struct) else str(value)
