"""What sampler settings may be: one place for the worker and for every dialect."""

from __future__ import annotations

from typing import Any, Final

from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import DEFAULT_SAMPLERS, Sampling

MAX_PROBS = 1024
"""Likeliest tokens that may be reported beside each chosen one."""
MAX_BIASES = 4096
"""Tokens whose logits one request may change."""
MAX_TOKEN = 2**31 - 1
"""No vocabulary has so many tokens."""
_INT = 2**31 - 1
# Far beyond any use, and far enough from the end of 32-bit floats that no product becomes infinite,
# from which llama.cpp would compute probabilities that are no numbers.
_HUGE = 1e9
_ANY: Final = (-_HUGE, _HUGE)
_COUNT: Final = (0, _INT)
_LIMITS: Final[dict[str, tuple[float, float]]] = {
    "temperature": (0, 100),
    "dynatemp_range": _ANY,
    "dynatemp_exponent": _ANY,
    "top_k": (-1, _INT),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": _ANY,
    "top_n_sigma": _ANY,
    "xtc_probability": (0, 1),
    "xtc_threshold": (0, 1),
    "repeat_last_n": _COUNT,
    "repeat_penalty": (1 / _HUGE, _HUGE),
    "frequency_penalty": _ANY,
    "presence_penalty": _ANY,
    "dry_multiplier": (0, _HUGE),
    "dry_base": _ANY,
    "dry_allowed_length": _COUNT,
    "dry_penalty_last_n": _COUNT,
    "mirostat": (0, 2),
    "mirostat_tau": (0, _HUGE),
    "mirostat_eta": (0, _HUGE),
    "adaptive_target": (-_HUGE, 1),
    "adaptive_decay": (0, 0.99),
    "min_keep": _COUNT,
    "n_probs": (0, MAX_PROBS),
}
_MAX_SAMPLERS = 32
_MAX_BREAKERS = 16
_SAMPLER_NAMES = (*DEFAULT_SAMPLERS, "infill", "adaptive_p")
_SAMPLERS = {
    **{name: name for name in _SAMPLER_NAMES},
    **{name.replace("_", ""): name for name in _SAMPLER_NAMES},
    "nucleus": "top_p",
    "temp": "temperature",
    "typ": "typ_p",
    "typical_p": "typ_p",
}
_SAMPLER_LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
    "i": "infill",
    "a": "adaptive_p",
}


def check_sampling(sampling: Sampling) -> None:
    """Check that every field of *sampling* is something that can be done.

    Raises:
        InvalidRequestError: one is out of range, or two contradict; ``param`` names the field.
    """
    for name, (low, high) in _LIMITS.items():
        check_limit(name, getattr(sampling, name), low, high)
    sampler_names(sampling.samplers)
    _check_biases(sampling)
    breakers = sampling.dry_sequence_breakers
    if not all(breakers) or not 1 <= len(breakers) <= _MAX_BREAKERS:
        raise _wrong(
            "dry_sequence_breakers", f"must hold 1 to {_MAX_BREAKERS} strings that are not empty"
        )
    if sampling.grammar and sampling.json_schema:
        raise InvalidRequestError(
            'Either "json_schema" or "grammar" can be specified, but not both', param="grammar"
        )


def check_limit(name: str, value: float, low: float, high: float) -> None:
    """Check that *value* lies between *low* and *high*; what is no number does not.

    Raises:
        InvalidRequestError: it lies elsewhere.
    """
    if not low <= value <= high:
        raise _wrong(
            name, f"Value must be between {_text(low)} <= value <= {_text(high)}, but got {value}"
        )


def sampler_names(given: tuple[str, ...] | str) -> tuple[str, ...]:
    """Return the samplers that *given* names, or abbreviates by one letter each, in its order.

    Raises:
        InvalidRequestError: there is no such sampler, or there are too many.
    """
    known = _SAMPLER_LETTERS if isinstance(given, str) else _SAMPLERS
    if len(given) > _MAX_SAMPLERS:
        raise _wrong("samplers", f"holds {len(given)} names; at most {_MAX_SAMPLERS} are allowed")
    names = []
    for name in given:
        found = known.get(name if isinstance(given, str) else name.lower().replace("-", "_"))
        if found is None:
            raise _wrong("samplers", f"there is no sampler {name!r}; known: {', '.join(known)}")
        names.append(found)
    return tuple(names)


def _check_biases(sampling: Sampling) -> None:
    if len(sampling.logit_bias) > MAX_BIASES:
        raise _wrong("logit_bias", f"holds more than {MAX_BIASES} entries")
    for key, bias in sampling.logit_bias:
        if isinstance(key, int):
            check_limit("logit_bias", key, 0, MAX_TOKEN)
        if bias is True:
            raise _wrong("logit_bias", "a bias is a number, or false to ban the token")
        if bias != float("-inf"):
            check_limit("logit_bias", bias, *_ANY)


def _wrong(name: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"Field '{name}': {problem}", param=name)


def _text(limit: Any) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"
