"""DRY samplers. To find the tokens of a sequence breaker, llama.cpp reads the whole vocabulary."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from threading import Lock
from typing import Any

from llm_router_mw.engine.native import llama
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import Sampling

_MAX_KEPT = 8

_Settings = tuple[float, float, int, int, tuple[str, ...]]


class DrySamplers:
    """Makes DRY samplers, and keeps one of each kind made lately to copy it.

    A new one takes ten milliseconds for each breaker at a vocabulary of 150,000 tokens, a copy some
    microseconds.
    """

    def __init__(self, vocab: Vocab, n_ctx: int) -> None:
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._lock = Lock()
        self._kept: OrderedDict[_Settings, Any] = OrderedDict()

    def make(self, sampling: Sampling) -> Any:
        """Return a sampler for *sampling*; it belongs to the caller."""
        settings = self._settings(sampling)
        with self._lock:  # large requests are prepared in a thread of their own
            if settings not in self._kept:
                self._kept[settings] = self._new(*settings)
            self._kept.move_to_end(settings)
            if len(self._kept) > _MAX_KEPT:
                llama.llama_sampler_free(self._kept.popitem(last=False)[1])
            return llama.llama_sampler_clone(self._kept[settings])

    def _settings(self, sampling: Sampling) -> _Settings:
        # As llama-server: a base below 1 would reward repetition.
        base = sampling.dry_base if sampling.dry_base >= 1 else Sampling().dry_base
        # llama.cpp allocates for as many tokens as it is told to look back.
        n_back = min(sampling.dry_penalty_last_n, self._n_ctx)
        return (
            sampling.dry_multiplier,
            base,
            sampling.dry_allowed_length,
            n_back,
            sampling.dry_sequence_breakers,
        )

    def _new(
        self,
        multiplier: float,
        base: float,
        allowed_length: int,
        n_back: int,
        breakers: tuple[str, ...],
    ) -> Any:
        texts = [text.encode(errors="replace") for text in breakers]
        return llama.llama_sampler_init_dry(
            self._vocab.pointer,
            multiplier,
            base,
            allowed_length,
            n_back,
            (ctypes.c_char_p * len(texts))(*texts),
            len(texts),
        )

    def close(self) -> None:
        """Free those kept."""
        for sampler in self._kept.values():
            llama.llama_sampler_free(sampler)
        self._kept.clear()
