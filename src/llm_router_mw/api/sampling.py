"""Sampler settings as clients write them: llama-server's names, and OpenAI's where it has one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from llm_router_mw.api.body import MAX_ITEMS
from llm_router_mw.api.demand import ModelRequest
from llm_router_mw.api.logprobs import LogprobStyle
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.sampling_limits import (
    MAX_PROBS,
    MAX_TOKEN,
    check_limit,
    check_sampling,
    sampler_names,
)
from llm_router_mw.types import Sampling

_SEEDS = 2**32 - 1
_ANY_OBJECT = '{"type":"object"}'
"""llama-server, too, takes an empty schema for this one."""

Bias = float | bool | None
Biases = (
    Annotated[dict[str, Bias], Meta(max_length=MAX_ITEMS)]
    | Annotated[list[tuple[int | str, Bias]], Meta(max_length=MAX_ITEMS)]
)


class ResponseFormat(Struct, frozen=True, kw_only=True):
    """OpenAI's ``response_format``; ``schema`` beside ``json_object`` is llama-server's."""

    type: str
    schema: dict[str, Any] | None = None
    json_schema: dict[str, Any] | None = None


class SamplingRequest(ModelRequest, frozen=True, kw_only=True):
    """Fields that say how tokens are chosen; null is the same as absent."""

    temperature: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: tuple[str, ...] | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    adaptive_target: float | None = None
    adaptive_decay: float | None = None
    min_keep: int | None = None
    seed: int | None = None
    logit_bias: Biases | None = None
    ignore_eos: bool | None = None
    samplers: str | tuple[str, ...] | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    response_format: ResponseFormat | None = None
    n_probs: int | None = None
    post_sampling_probs: bool | None = None

    def sampling(self) -> Sampling:
        """Return the sampler settings.

        Raises:
            InvalidRequestError: one is out of range, or two contradict.
        """
        given: dict[str, Any] = {
            name: value
            for name in Sampling.__struct_fields__
            if (value := getattr(self, name)) is not None
        }
        given["seed"] = _seed(self.seed)
        check_limit("n_probs", self.n_probs or 0, 0, MAX_PROBS)
        style = self.logprob_style()
        # The engine reports chosen tokens only together with others.
        given["n_probs"] = 0 if style is None else max(style.n_top, self.n_probs or 0, 1)
        given["json_schema"] = _schema_text(self._schema())
        if self.logit_bias is not None:
            given["logit_bias"] = tuple(_biases(self.logit_bias))
        if self.samplers is not None:
            given["samplers"] = sampler_names(self.samplers)
        sampling = Sampling(**given)
        check_sampling(sampling)
        return sampling

    def logprob_style(self) -> LogprobStyle | None:
        """Return how to write the probabilities of tokens; None is not at all.

        Raises:
            InvalidRequestError: the fields that say so contradict.
        """
        return LogprobStyle(self.n_probs, bool(self.post_sampling_probs)) if self.n_probs else None

    @property
    def schema_field(self) -> str:
        """The field that gave the JSON schema, if there is one."""
        return "json_schema" if self.json_schema is not None else "response_format"

    def _schema(self) -> dict[str, Any] | None:
        wanted = _response_schema(self.response_format)
        if self.grammar and (wanted is not None or self.json_schema is not None):
            raise InvalidRequestError(
                f"grammar and {self.schema_field} contradict; send only one of them",
                param="grammar",
            )
        if wanted is None or self.json_schema is None:
            return self.json_schema if wanted is None else wanted
        raise InvalidRequestError(
            "response_format and json_schema both give a schema; send only one of them",
            param="response_format",
        )


def _response_schema(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    """Return the schema that *wanted* asks for, if it asks for JSON at all."""
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return wanted.schema or {}
    if wanted.type != "json_schema":
        raise InvalidRequestError(
            f'response_format type must be one of "text", "json_object" or "json_schema", but got: '
            f"{wanted.type}",
            param="response_format",
        )
    schema = (wanted.json_schema or {}).get("schema")
    if not isinstance(schema, dict):
        raise InvalidRequestError(
            "response_format.json_schema.schema is missing; it holds the JSON schema",
            param="response_format",
        )
    return schema


def _schema_text(schema: dict[str, Any] | None) -> str:
    # Text crosses the pipe as it is; the worker need not build what it may not even use.
    if schema is None:
        return ""
    return msgspec.json.encode(schema).decode() if schema else _ANY_OBJECT


def _biases(given: Biases) -> Iterator[tuple[int | str, float | bool]]:
    for key, bias in given.items() if isinstance(given, dict) else given:
        if bias is None:
            raise InvalidRequestError(
                "logit_bias: a bias is a number, or false to ban the token", param="logit_bias"
            )
        yield _token(key), bias


def _token(key: int | str) -> int | str:
    """Return the token that *key* is the number of, or else the text for what is in it."""
    if isinstance(key, str) and key.isascii() and key.isdigit():
        # What is no token of any model is a number all the same.
        return min(int(key[:20]), MAX_TOKEN)
    return key


def _seed(given: int | None) -> int | None:
    """Fold *given* into llama.cpp's 32 bits, of which the highest value means "random"."""
    return None if given is None or given == -1 else given % _SEEDS
