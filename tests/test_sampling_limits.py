"""What sampler settings may be."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.sampling_limits import MAX_BIASES, check_limit, check_sampling, sampler_names
from llm_router_mw.types import DEFAULT_SAMPLERS, Sampling

DEFAULTS: dict[str, Any] = msgspec.structs.asdict(Sampling())
FLOATS = [name for name, value in DEFAULTS.items() if isinstance(value, float)]


def refusal(**settings: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        check_sampling(Sampling(**settings))
    return caught.value


def test_the_defaults_are_fine() -> None:
    check_sampling(Sampling())


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_ordinary_number_is_refused(name: str, value: float) -> None:
    assert refusal(**{name: value}).param == name


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        ({"temperature": -0.1}, "0", "100"),
        ({"top_k": -2}, "-1", "2147483647"),
        ({"top_p": 1.5}, "0", "1"),
        ({"min_p": -0.1}, "0", "1"),
        ({"xtc_probability": 2}, "0", "1"),
        ({"xtc_threshold": -1}, "0", "1"),
        ({"repeat_last_n": -1}, "0", "2147483647"),
        ({"repeat_penalty": 0.0}, "1e-09", "1e+09"),
        ({"dry_multiplier": -1.0}, "0", "1e+09"),
        ({"dry_allowed_length": -1}, "0", "2147483647"),
        ({"dry_penalty_last_n": 2**31}, "0", "2147483647"),
        ({"mirostat": 3}, "0", "2"),
        ({"mirostat_tau": -1.0}, "0", "1e+09"),
        ({"mirostat_eta": -1.0}, "0", "1e+09"),
        ({"adaptive_target": 1.1}, "-1e+09", "1"),
        ({"adaptive_decay": 1.0}, "0", "0.99"),
        ({"min_keep": -1}, "0", "2147483647"),
        ({"n_probs": 1025}, "0", "1024"),
    ],
)
def test_a_value_out_of_range_is_refused_in_llama_servers_words(
    settings: dict[str, Any], low: str, high: str
) -> None:
    ((name, value),) = settings.items()
    error = refusal(**settings)
    assert error.param == name
    assert error.message == (
        f"Field '{name}': Value must be between {low} <= value <= {high}, but got {value}"
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"samplers": ("top_q",)}, "there is no sampler 'top_q'; known: penalties"),
        ({"samplers": ("top_k",) * 33}, "at most 32"),
        ({"dry_sequence_breakers": ()}, "1 to 16 strings"),
        ({"dry_sequence_breakers": ("a",) * 17}, "1 to 16 strings"),
        ({"dry_sequence_breakers": ("a", "")}, "that are not empty"),
        ({"logit_bias": ((1, True),)}, "a bias is a number, or false"),
        ({"logit_bias": ((1, math.nan),)}, "but got nan"),
        ({"logit_bias": ((1, math.inf),)}, "but got inf"),
        ({"logit_bias": ((-1, 1.0),)}, "but got -1"),
        ({"logit_bias": ((1, 1.0),) * (MAX_BIASES + 1)}, f"more than {MAX_BIASES}"),
    ],
)
def test_other_settings_are_checked_too(settings: dict[str, Any], problem: str) -> None:
    error = refusal(**settings)
    assert [error.param] == list(settings)
    assert problem in error.message


def test_two_ways_to_bind_the_answer_contradict() -> None:
    error = refusal(grammar='root ::= "a"', json_schema="{}")
    assert error.param == "grammar"
    assert error.message == 'Either "json_schema" or "grammar" can be specified, but not both'


@pytest.mark.parametrize("bias", [False, -math.inf, 0, 5, -3.5])
def test_biases_may_be_any_number_or_a_ban(bias: float | bool) -> None:
    check_sampling(Sampling(logit_bias=((1, bias), ("text", bias))))


def test_samplers_have_several_names_and_a_letter_each() -> None:
    assert sampler_names(DEFAULT_SAMPLERS) == DEFAULT_SAMPLERS
    assert sampler_names(("Top-K", "topp", "nucleus", "temp", "typ", "typical_p", "min-p")) == (
        *("top_k", "top_p", "top_p", "temperature", "typ_p", "typ_p", "min_p"),
    )
    assert sampler_names("edskypmxt") == DEFAULT_SAMPLERS
    assert sampler_names("ia") == ("infill", "adaptive_p")


def test_an_unknown_letter_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="there is no sampler 'q'"):
        sampler_names("kq")


def test_limits_belong_to_the_range() -> None:
    check_limit("x", 0, 0, 1)
    check_limit("x", 1, 0, 1)
