"""What a scheduler was told, as text that can be replayed: JSON lines, one event each.

The first line says how the scheduler was made, ``{"policy": "lru", "limits": {...}}``; it may be
missing, and what it leaves out is as by default. Every other line is
``{"at": 1.5, "type": "Loaded", "event": {"instance": {"path": "a"}, "generation": 1}}``: the time
in seconds, the class in :mod:`llm_router_mw.scheduler.events`, and its fields. An instance is
written as its path and those load options that are not as by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

import msgspec
from msgspec import Struct

from llm_router_mw.errors import ConfigError
from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.types import InstanceKey, LoadOptions

_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(events.Event)}
_USUAL: dict[str, Any] = msgspec.to_builtins(LoadOptions())


class Setup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the scheduler was made."""

    policy: str = "lru"
    """Name of the eviction policy."""
    limits: Limits = Limits()


class _Line(Struct, frozen=True, forbid_unknown_fields=True):
    at: float
    type: str
    event: dict[str, Any]


def setup_line(setup: Setup) -> str:
    """Return the first line of a trace."""
    return msgspec.json.encode(setup).decode()


def event_line(at_seconds: float, event: events.Event) -> str:
    """Return the line that says that *event* came at *at_seconds*."""
    fields = msgspec.structs.asdict(event)
    if isinstance(event, events.MemoryObserved):
        # JSON has no place for an instance as the name of a member.
        fields["instances"] = list(event.instances.items())
    line = _Line(at_seconds, type(event).__name__, _short(msgspec.to_builtins(fields)))
    return msgspec.json.encode(line).decode()


def read_event_trace(lines: Iterable[str]) -> tuple[Setup, Iterator[tuple[float, events.Event]]]:
    """Return how the scheduler was made, and the events with their times as they are read.

    Raises:
        ConfigError: a line cannot be understood; it says which and why.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise ConfigError("the trace of events is empty; give it a line for each event")
    if '"at"' not in first[1]:
        return _decoded(Setup, *first), _events(numbered)
    return Setup(), _events(_with_first(first, numbered))


def _with_first(
    first: tuple[int, str], rest: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _events(numbered: Iterable[tuple[int, str]]) -> Iterator[tuple[float, events.Event]]:
    for number, text in numbered:
        line = _decoded(_Line, number, text)
        kind = _TYPES.get(line.type)
        if kind is None:
            raise ConfigError(
                f"line {number}: there is no event {line.type!r}; there are "
                f"{', '.join(sorted(_TYPES))}"
            )
        try:
            yield line.at, _event(kind, _long(line.event))
        except msgspec.ValidationError as error:
            raise ConfigError(f"line {number}: {line.type}: {error}; correct that field") from error


def _event(kind: type[Any], fields: dict[str, Any]) -> Any:
    if kind is not events.MemoryObserved:
        return msgspec.convert(fields, kind)
    pairs = msgspec.convert(
        fields.pop("instances", ()), tuple[tuple[InstanceKey, dict[str, int]], ...]
    )
    return msgspec.structs.replace(msgspec.convert(fields, kind), instances=dict(pairs))


def _decoded(kind: type[Any], number: int, text: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise ConfigError(f"line {number}: {error}; correct it or leave it out") from error


def _short(value: Any) -> Any:
    """Return *value* with each instance written briefly."""
    if isinstance(value, dict):
        if value.keys() == {"path", "options"}:
            said = {k: v for k, v in value["options"].items() if v != _USUAL[k]}
            return {"path": value["path"], "options": said} if said else {"path": value["path"]}
        return {name: _short(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    return value


def _long(value: Any) -> Any:
    """Return *value* with what ``_short`` left out."""
    if isinstance(value, dict):
        if value.keys() == {"path"}:
            return {**value, "options": {}}
        return {name: _long(item) for name, item in value.items()}
    return [_long(item) for item in value] if isinstance(value, list) else value
