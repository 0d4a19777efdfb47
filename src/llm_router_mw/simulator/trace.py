"""Who asked for what, when: JSON lines that a simulation replays.

First a line for each model, then a line for each request, in the order of time::

    {"model": "chat-8b", "size_bytes": 6400000000, "load_seconds": 3.1}
    {"time": 0.5, "model": "chat-8b", "tokens": 240, "key": "alice"}

A line with a ``time`` is a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

import msgspec
from msgspec import Struct

from llm_router_mw.errors import ConfigError


class ModelFacts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What has to be known of a model to play it."""

    model: str
    size_bytes: int
    """All that it takes, weights and context and the rest."""
    context_bytes: int = 0
    """Part of it that sleep of level ``context`` gives back."""
    overhead_bytes: int = 0
    """Part of it that a sleeping process keeps."""
    load_seconds: float
    wake_seconds: float | None = None
    """Of a wake from level ``full``; None is as long as a load."""
    tokens_per_second: float = 50.0
    """Of one answer, whatever else runs."""
    parallel: int = 4
    """Answers at once; more wait inside the engine."""
    pinned: bool = False


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One request."""

    time: float
    """Seconds from the beginning."""
    model: str
    tokens: int = 100
    """Of the answer."""
    priority: int = 0
    key: str = ""
    """Whose request it is."""


@dataclass(frozen=True)
class Trace:
    """Models, and the requests for them as they come; the requests can be gone through once."""

    models: Mapping[str, ModelFacts]
    asks: Iterator[Ask]


def read_trace(lines: Iterable[str | bytes]) -> Trace:
    """Return the trace in *lines*; requests are read one by one, as they are needed.

    Raises:
        ConfigError: a line cannot be understood, names an unknown model or is out of order. It
            says which line; those of requests are met while they are gone through.
    """
    models: dict[str, ModelFacts] = {}
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    for number, line in numbered:
        if _is_request(number, line):
            return Trace(models, _asks(number, line, numbered, models))
        facts = _facts(number, line)
        if facts.model in models:
            raise ConfigError(
                f"line {number}: model {facts.model!r} is described twice; leave one line out"
            )
        models[facts.model] = facts
    return Trace(models, iter(()))


def trace_lines(trace: Trace) -> Iterator[str]:
    """Return *trace* as lines."""
    encode = msgspec.json.Encoder().encode
    for facts in trace.models.values():
        yield encode(facts).decode()
    for ask in trace.asks:
        yield encode(ask).decode()


def _is_request(number: int, line: str | bytes) -> bool:
    try:
        said = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise ConfigError(f"line {number}: {error}; each line must be a JSON object") from error
    if not isinstance(said, dict):
        raise ConfigError(f"line {number} is no JSON object; write {{...}} on each line")
    return "time" in said


def _facts(number: int, line: str | bytes) -> ModelFacts:
    try:
        facts = msgspec.json.decode(line, type=ModelFacts)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"line {number}: {error}; a line without a time describes a model by model, "
            "size_bytes and load_seconds"
        ) from error
    problem = _problem(facts)
    if problem:
        raise ConfigError(f"line {number}: model {facts.model!r}: {problem}")
    return facts


def _problem(facts: ModelFacts) -> str:
    if facts.size_bytes < 1 or min(facts.context_bytes, facts.overhead_bytes) < 0:
        return "size_bytes must be above 0, and no part of it below 0"
    if facts.context_bytes + facts.overhead_bytes > facts.size_bytes:
        return "context_bytes and overhead_bytes are parts of size_bytes, and cannot exceed it"
    seconds = (facts.load_seconds, facts.wake_seconds or 0.0)
    if not all(isfinite(each) and each >= 0 for each in seconds):
        return "load_seconds and wake_seconds must be 0 or more"
    if not (isfinite(facts.tokens_per_second) and facts.tokens_per_second > 0):
        return "tokens_per_second must be above 0"
    return "" if facts.parallel >= 1 else "parallel must be 1 or more"


def _asks(
    first_number: int,
    first_line: str | bytes,
    rest: Iterator[tuple[int, str | bytes]],
    models: Mapping[str, ModelFacts],
) -> Iterator[Ask]:
    decode = msgspec.json.Decoder(Ask).decode
    now = 0.0
    number, line = first_number, first_line
    while True:
        try:
            ask = decode(line)
        except msgspec.DecodeError as error:
            raise ConfigError(_bad_request(number, line, error)) from error
        if ask.model not in models:
            raise ConfigError(
                f"line {number}: nothing is known of model {ask.model!r}; describe it before the "
                'first request: {"model": ..., "size_bytes": ..., "load_seconds": ...}'
            )
        if ask.time < now:
            raise ConfigError(
                f"line {number}: its time, {ask.time:g}, is before {now:g}; sort the requests by "
                "time, and begin at 0 or later"
            )
        if ask.tokens < 0:
            raise ConfigError(f"line {number}: tokens is {ask.tokens}; it must be 0 or more")
        now = ask.time
        yield ask
        following = next(rest, None)
        if following is None:
            return
        number, line = following


def _bad_request(number: int, line: str | bytes, error: msgspec.DecodeError) -> str:
    text = line if isinstance(line, str) else line.decode(errors="replace")
    if '"time"' not in text and "size_bytes" in text:
        return f"line {number}: models are described before the first request; move it up"
    return f"line {number}: {error}; a request is a time, a model and, if need be, tokens"
