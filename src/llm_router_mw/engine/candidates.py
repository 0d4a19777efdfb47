"""The tokens of a vocabulary with their logits, laid out for llama.cpp's samplers."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_router_mw.engine.native import llama

_COLUMNS = 3
"""A row is a token (a 32-bit integer), its logit and its probability (32-bit floats)."""

Logits = NDArray[np.float32]
"""One for each token of the vocabulary."""


class Candidates:
    """One array that serves all requests of an instance in turn: nothing is allocated per token."""

    def __init__(self, n_vocab: int) -> None:
        # Plain arrays of numbers: numpy copies records one by one, which takes five times as long.
        self._rows = np.zeros((n_vocab, _COLUMNS), np.float32)
        self._tokens = self._rows.view(np.int32)[:, 0]
        self._logits = self._rows[:, 1]
        self._tokens[:] = np.arange(n_vocab)
        self._fresh = self._rows.copy()
        self._array = llama.llama_token_data_array()
        self._reference = ctypes.byref(self._array)
        self._address = ctypes.cast(self._rows.ctypes.data, llama.llama_token_data_p)
        self._logits_kind = ctypes.c_float * n_vocab

    def logits(self, context: Any, row: int) -> Logits:
        """Return the logits of *row* of the last batch of *context*, valid until the next one."""
        first = llama.llama_get_logits_ith(context, row).contents
        return _view(self._logits_kind.from_address(ctypes.addressof(first)))

    def fill(self, logits: Logits, tokens: NDArray[np.integer[Any]] | None = None) -> None:
        """Begin with all tokens, or only with *tokens*, at their *logits*."""
        if tokens is None:
            self._rows[:] = self._fresh
            self._logits[:] = logits
            self._begin(len(logits))
        else:
            self._tokens[: len(tokens)] = tokens
            self._logits[: len(tokens)] = logits[tokens]
            self._begin(len(tokens))

    def _begin(self, size: int) -> None:
        array = self._array
        array.data = self._address
        array.size = size
        array.selected = -1
        array.sorted = False

    def apply(self, sampler: Any) -> None:
        """Let *sampler* narrow, sort or choose."""
        llama.llama_sampler_apply(sampler, self._reference)

    def drop_impossible(self) -> Logits:
        """Keep only candidates whose logit is not minus infinity; return the logits of those.

        Nothing may have been applied but a grammar, which leaves all rows in their places.
        """
        size = self._array.size
        possible = np.flatnonzero(self._logits[:size] > -np.inf)
        count = len(possible)
        self._tokens[:count] = self._tokens[possible]
        self._logits[:count] = self._logits[possible]
        self._begin(count)
        return self._logits[:count]

    @property
    def chosen(self) -> int | None:
        """The token that was chosen; None if it has been ruled out and was only left over."""
        if self._array.selected < 0:
            return None
        row = self._array.data[self._array.selected]
        return int(row.id) if row.logit > -np.inf else None

    def probabilities(self, token: int, n_top: int) -> tuple[float, list[tuple[int, float]]]:
        """Return the probability that the samplers gave *token*, and the *n_top* likeliest."""
        size = self._array.size
        # A sampler may have put other memory in the place of ours.
        memory = (ctypes.c_float * (_COLUMNS * size)).from_address(
            ctypes.addressof(self._array.data[0])
        )
        rows = _view(memory).reshape(size, _COLUMNS)
        tokens, chances = rows.view(np.int32)[:, 0], rows[:, 2]
        own = float(chances[tokens == token].sum())
        top = np.argpartition(chances, -n_top)[-n_top:] if n_top < size else np.arange(size)
        top = top[np.argsort(-chances[top], kind="stable")]
        return own, [(int(tokens[i]), float(chances[i])) for i in top if chances[i] > 0]


def _view(array: Any) -> Logits:
    """Return the memory of a ctypes array of floats."""
    return np.frombuffer(array, np.float32)
