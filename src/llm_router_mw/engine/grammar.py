"""Grammars that answers have to follow, as llama.cpp's samplers."""

from __future__ import annotations

import ctypes
import json
from functools import lru_cache
from time import thread_time
from typing import Any, NoReturn

from llm_router_mw.engine.candidates import Candidates
from llm_router_mw.engine.gbnf import GBNFError, parse
from llm_router_mw.engine.gbnf_cost import ROOT, check_cost
from llm_router_mw.engine.native import llama, log
from llm_router_mw.engine.schema.convert import schema_to_gbnf
from llm_router_mw.engine.schema.error import SchemaError
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import Sampling

_MAX_GRAMMAR_CHARACTERS = 64 * 1024
_MAX_SCHEMA_CHARACTERS = 128 * 1024
# Processor time. Usual are microseconds and tens of milliseconds; an ambiguous grammar multiplies
# them with each token, and all other requests wait meanwhile.
_MAX_ACCEPT_SECONDS = 0.01
_MAX_RESTRICT_SECONDS = 1.5
_IMPOSSIBLE = float("-inf")


class Grammar:
    """Follows one answer through a grammar."""

    def __init__(self, text: str, param: str, vocab: Vocab) -> None:
        """Begin at the beginning of the grammar *text*, which the request's field *param* gave.

        Raises:
            InvalidRequestError: llama.cpp does not take it.
        """
        self.param = param
        """The request's field that asked for it."""
        log.clear()
        self._sampler = llama.llama_sampler_init_grammar(
            vocab.pointer, text.encode(), ROOT.encode()
        )
        if not self._sampler:
            reason = log.last_errors() or "it gave no reason"
            raise InvalidRequestError(
                f"Field '{param}': llama.cpp cannot use the grammar: {reason}", param=param
            )
        self._single = llama.llama_token_data()
        self._array = llama.llama_token_data_array(ctypes.pointer(self._single), 1, -1, False)
        self._reference = ctypes.byref(self._array)

    def allows(self, token: int) -> bool:
        """Tell whether *token* may come next."""
        single = self._single
        single.id, single.logit = token, 1.0
        llama.llama_sampler_apply(self._sampler, self._reference)
        return bool(single.logit != _IMPOSSIBLE)

    def restrict(self, candidates: Candidates) -> None:
        """Make all candidates that may not come next impossible.

        Raises:
            InvalidRequestError: there are so many ways to read the answer that it takes too long.
        """
        started_at = thread_time()
        candidates.apply(self._sampler)
        self._check_time(started_at, _MAX_RESTRICT_SECONDS)

    def accept(self, token: int) -> None:
        """Go on behind *token*, which is allowed: llama.cpp ends the process if it is not.

        Raises:
            InvalidRequestError: as by :meth:`restrict`.
        """
        started_at = thread_time()
        llama.llama_sampler_accept(self._sampler, token)
        self._check_time(started_at, _MAX_ACCEPT_SECONDS)

    def _check_time(self, started_at: float, limit: float) -> None:
        if thread_time() - started_at > limit:
            raise InvalidRequestError(
                f"Field '{self.param}': the grammar is too ambiguous to be followed; make it "
                "decide earlier between its alternatives",
                param=self.param,
            )

    def close(self) -> None:
        """Free it."""
        llama.llama_sampler_free(self._sampler)


def make_grammar(sampling: Sampling, vocab: Vocab) -> Grammar | None:
    """Return the grammar that *sampling* asks for, if any.

    Raises:
        InvalidRequestError: grammar or schema is wrong, or cannot be followed in bounded time.
    """
    if sampling.grammar:
        _check_grammar(sampling.grammar)
        return Grammar(sampling.grammar, "grammar", vocab)
    if sampling.json_schema:
        return Grammar(_schema_grammar(_schema_text(sampling.json_schema)), "json_schema", vocab)
    return None


# The same few schemas come again and again, from every user of an application.
@lru_cache(maxsize=64)
def _check_grammar(text: str) -> None:
    if len(text) > _MAX_GRAMMAR_CHARACTERS:
        _refuse("grammar", f"it is longer than {_MAX_GRAMMAR_CHARACTERS} characters")
    if "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        _refuse("grammar", "it holds a character that is none")
    try:
        check_cost(parse(text))
    except GBNFError as error:
        _refuse("grammar", str(error), error)


@lru_cache(maxsize=64)
def _schema_grammar(text: str) -> str:
    if len(text) > _MAX_SCHEMA_CHARACTERS:
        _refuse("json_schema", f"it is longer than {_MAX_SCHEMA_CHARACTERS} characters")
    try:
        grammar = schema_to_gbnf(json.loads(text, parse_constant=_refuse_constant))
        check_cost(parse(grammar))
    except RecursionError as error:
        _refuse("json_schema", "it is nested too deeply", error)
    # GBNFError and SchemaError too, and what json makes of a text that is none.
    except ValueError as error:
        _refuse("json_schema", str(error), error)
    return grammar


def _schema_text(schema: str | dict[str, Any]) -> str:
    if isinstance(schema, str):
        return schema
    try:
        return json.dumps(schema, allow_nan=False)
    except (RecursionError, ValueError, TypeError) as error:
        _refuse("json_schema", f"it cannot be written as JSON: {error}", error)


def _refuse_constant(name: str) -> NoReturn:
    raise SchemaError("", f"{name} is no JSON value")


def _refuse(param: str, problem: str, cause: Exception | None = None) -> NoReturn:
    raise InvalidRequestError(f"Field '{param}': {problem}", param=param) from cause
