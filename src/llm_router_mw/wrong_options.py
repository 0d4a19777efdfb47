"""Sentences about options that cannot be taken as they are."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Struct

_COMPLAINT = re.compile(r"(?P<fault>.*) - at `\$\.(?P<place>(?P<name>\w+).*)`")
"""What msgspec says: "Expected `int`, got `str` - at `$.models_max`"."""
_UNKNOWN = re.compile(r"Object contains unknown field `(\w+)`")
_NO_WORD = "Invalid enum value "
_LIKENESS = 0.75
"""Of two names, from 0 to 1, from which on one may be a slip of the other."""


def unknown_names(kind: str, unknown: Collection[str], known: Collection[str]) -> str:
    """Say which names of a *kind* of thing are not *known*, and what may have been meant."""
    named = ", ".join(sorted(map(repr, unknown)))
    spelt = {_in_order(name): name for name in known} | {name: name for name in known}
    meant = [get_close_matches(_in_order(name), spelt, 1, _LIKENESS) for name in sorted(unknown)]
    if all(meant):
        likely = ", ".join(repr(spelt[near]) for [near] in meant)
        return f"unknown {kind} {named}; did you mean {likely}?"
    return f"unknown {kind} {named}; known are {', '.join(sorted(known))}"


def wrong_value(complaint: str, kind: type[Struct]) -> str:
    """Return *complaint*, msgspec's about a value of *kind*, with the option's name in front."""
    if unknown := _UNKNOWN.fullmatch(complaint):
        return unknown_names("option", unknown.groups(), kind.__struct_fields__)
    found = _COMPLAINT.fullmatch(complaint)
    if found is None:
        return complaint
    place, fault = found["place"], found["fault"]
    if fault.startswith(_NO_WORD):
        given, words = fault.removeprefix(_NO_WORD), _words(get_type_hints(kind)[found["name"]])
        if not words:
            return f"{place} cannot be {given}"
        return f"{place} is {given}; it must be {', '.join(words[:-1])} or {words[-1]}"
    return f"{place}: {fault[:1].lower()}{fault[1:]}"


def _in_order(name: str) -> str:
    """Return the words of *name* in an order of their own: max_models is meant for models_max."""
    return "_".join(sorted(name.split("_")))


def _words(hint: Any) -> list[str]:
    """Return the words that may stand where *hint* is asked for, if it allows but a few."""
    if get_origin(hint) is Literal:
        return [repr(word) for word in get_args(hint)]
    return [word for part in get_args(hint) for word in _words(part)]
