"""From request fields to sampler settings."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from llm_router_mw.api.body import decode
from llm_router_mw.api.openai import ChatCompletionRequest, CompletionRequest
from llm_router_mw.api.sampling import SamplingRequest
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import Sampling

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def read(**fields: Any) -> Sampling:
    """Return the settings that a client asks for with *fields*."""
    decoder = msgspec.json.Decoder(SamplingRequest)
    return decode(msgspec.json.encode(fields), decoder).sampling()


def test_nothing_given_means_the_defaults() -> None:
    assert read() == Sampling()
    assert read(**dict.fromkeys(SamplingRequest.__struct_fields__)) == Sampling()


PLAIN = {
    "temperature": 0.5,
    "dynatemp_range": 0.1,
    "dynatemp_exponent": 1.5,
    "top_k": 7,
    "top_p": 0.5,
    "min_p": 0.1,
    "typical_p": 0.9,
    "top_n_sigma": 2.0,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.2,
    "repeat_last_n": 9,
    "repeat_penalty": 1.1,
    "frequency_penalty": 0.2,
    "presence_penalty": 0.3,
    "dry_multiplier": 0.8,
    "dry_base": 2.0,
    "dry_allowed_length": 3,
    "dry_penalty_last_n": 100,
    "dry_sequence_breakers": ["a", "b"],
    "mirostat": 2,
    "mirostat_tau": 4.0,
    "mirostat_eta": 0.2,
    "adaptive_target": 0.4,
    "adaptive_decay": 0.5,
    "min_keep": 2,
    "seed": 9,
    "ignore_eos": True,
    "grammar": 'root ::= "a"',
    "n_probs": 4,
    "post_sampling_probs": True,
}


@pytest.mark.parametrize(("name", "value"), PLAIN.items())
def test_what_is_given_is_taken(name: str, value: Any) -> None:
    expected: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value}
    assert read(**{name: value}) == Sampling(**expected)


def test_every_setting_can_be_given() -> None:
    others = {"logit_bias", "samplers", "json_schema"}
    assert set(Sampling.__struct_fields__) == set(PLAIN) | others


@pytest.mark.parametrize(
    ("given", "used"), [(-1, None), (0, 0), (2**32 - 1, 0), (2**63, 2**63 % (2**32 - 1))]
)
def test_any_seed_is_folded_into_those_that_llama_cpp_knows(given: int, used: int | None) -> None:
    assert read(seed=given).seed == used


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({"5": 1.5, "Hi": -2, "7": False}, ((5, 1.5), ("Hi", -2.0), (7, False))),
        ([[5, 1.5], ["Hi", -2], ["7", False]], ((5, 1.5), ("Hi", -2.0), (7, False))),
        ({"9" * 50: 1}, ((2**31 - 1, 1.0),)),
        ({"-5": 1, "٥": 1}, (("-5", 1.0), ("٥", 1.0))),
        ({}, ()),
    ],
)
def test_biases_come_as_an_object_or_as_pairs(given: Any, used: Any) -> None:
    assert read(logit_bias=given).logit_bias == used


def test_samplers_come_as_names_or_as_letters() -> None:
    assert read(samplers=["top-k", "temp"]).samplers == ("top_k", "temperature")
    assert read(samplers="kt").samplers == ("top_k", "temperature")


@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({}, ""),
        ({"response_format": {"type": "text"}}, ""),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, SCHEMA),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
                }
            },
            SCHEMA,
        ),
        ({"json_schema": SCHEMA}, SCHEMA),
        ({"json_schema": {}}, {"type": "object"}),
        ({"json_schema": SCHEMA, "response_format": {"type": "text"}}, SCHEMA),
    ],
)
def test_a_schema_comes_in_several_ways(fields: dict[str, Any], schema: Any) -> None:
    text = read(**fields).json_schema
    assert isinstance(text, str)
    assert (json.loads(text) if text else "") == schema


@pytest.mark.parametrize(
    ("kind", "fields", "n_probs", "n_top"),
    [
        (ChatCompletionRequest, {}, 0, None),
        (ChatCompletionRequest, {"logprobs": False, "top_logprobs": 0}, 0, None),
        (ChatCompletionRequest, {"logprobs": True}, 1, 0),
        (ChatCompletionRequest, {"logprobs": True, "top_logprobs": 20}, 20, 20),
        (ChatCompletionRequest, {"n_probs": 3}, 3, 3),
        (ChatCompletionRequest, {"n_probs": 30, "logprobs": True, "top_logprobs": 2}, 30, 2),
        (CompletionRequest, {}, 0, None),
        (CompletionRequest, {"logprobs": False}, 0, None),
        (CompletionRequest, {"logprobs": 0}, 1, 0),
        (CompletionRequest, {"logprobs": 5}, 5, 5),
        (CompletionRequest, {"n_probs": 100}, 100, 100),
    ],
)
def test_probabilities_are_asked_for_in_each_dialects_way(
    kind: type[ChatCompletionRequest | CompletionRequest],
    fields: dict[str, Any],
    n_probs: int,
    n_top: int | None,
) -> None:
    request = kind(**fields)
    style = request.logprob_style()
    assert request.sampling().n_probs == n_probs
    assert (None if style is None else style.n_top) == n_top


@pytest.mark.parametrize("value", [True, -1, 21])
def test_a_completion_takes_a_number_of_logprobs(value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        CompletionRequest(logprobs=value).sampling()
    assert caught.value.param == "logprobs"
