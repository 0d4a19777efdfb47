"""``keep_alive`` of requests, in the forms that Ollama takes."""

from __future__ import annotations

import re
from typing import Final

from llm_router_mw.errors import InvalidRequestError

FOREVER: Final = -1.0

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_NUMBER = r"\d+\.?\d*|\.\d+"
_PART = rf"(?:{_NUMBER})(?:ns|us|µs|ms|s|m|h)"
_TIME = re.compile(rf"([+-]?)(?:({_NUMBER})|((?:{_PART})+))", re.ASCII)
_PARTS = re.compile(rf"({_NUMBER})([a-zµ]+)", re.ASCII)
_MAX_CHARACTERS = 100


def keep_alive_seconds(given: float | str | None) -> float | None:
    """Return how long a model stays, in seconds: 0 releases it, ``FOREVER`` keeps it.

    *given* is a number of seconds or a text like ``"90"``, ``"5m"`` or ``"1h30m"``; what is
    negative means for ever. None stays None.

    Raises:
        InvalidRequestError: it is no such text.
    """
    seconds = _seconds(given) if isinstance(given, str) else given
    if seconds is None:
        return None
    return FOREVER if seconds < 0 else seconds


def _seconds(text: str) -> float:
    stripped = text.strip()
    found = _TIME.fullmatch(stripped) if len(stripped) <= _MAX_CHARACTERS else None
    if found is None:
        raise InvalidRequestError(
            f"keep_alive is {text[:_MAX_CHARACTERS]!r}; it must be a number of seconds or a time "
            "like '5m' or '1h30m', 0 to release the model, or -1 to keep it",
            param="keep_alive",
        )
    sign, plain, parts = found.groups()
    if plain:
        seconds = float(plain)
    else:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(parts))
    return -seconds if sign == "-" else seconds
