"""Choosing the next token: llama.cpp's own samplers, one chain per request."""

from __future__ import annotations

import math
import secrets

from llm_router_mw.engine.context import Context
from llm_router_mw.engine.native import llama
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import Sampling

_RANDOM_SEED = llama.LLAMA_DEFAULT_SEED
_MAX_TOP_K = 2**31 - 1


class Sampler:
    """A chain of samplers with a state of its own (its random numbers)."""

    def __init__(self, sampling: Sampling) -> None:
        """Build the chain that *sampling* describes, in llama-server's order.

        Raises:
            InvalidRequestError: a setting is not a finite number.
        """
        for name in ("temperature", "top_p", "min_p"):
            if not math.isfinite(getattr(sampling, name)):
                raise InvalidRequestError(f"{name} must be a finite number", param=name)
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        if sampling.temperature <= 0:
            self._add(llama.llama_sampler_init_greedy())
            return
        if sampling.top_k > 0:
            self._add(llama.llama_sampler_init_top_k(min(sampling.top_k, _MAX_TOP_K)))
        if sampling.top_p < 1:
            self._add(llama.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            self._add(llama.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(llama.llama_sampler_init_temp(sampling.temperature))
        self._add(llama.llama_sampler_init_dist(_seed(sampling.seed)))

    def _add(self, sampler: object) -> None:
        llama.llama_sampler_chain_add(self._chain, sampler)

    def sample(self, context: Context, row: int) -> int:
        """Choose a token by the logits of *row* of the last batch, and remember it."""
        token: int = llama.llama_sampler_sample(self._chain, context.pointer, row)
        return token

    def close(self) -> None:
        """Free the chain."""
        llama.llama_sampler_free(self._chain)


def _seed(seed: int | None) -> int:
    # llama.cpp takes 2^32 - 1 as "draw one", which llama-server writes as -1; we draw it here.
    if seed is None or seed == -1:
        return secrets.randbelow(_RANDOM_SEED)
    return int(seed % _RANDOM_SEED)
