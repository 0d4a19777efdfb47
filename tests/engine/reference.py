"""Greedy generation in the plainest way: one sequence, one token at a time, no engine of ours."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as bindings
from msgspec import Struct

llama: Any = bindings

TIE = 1e-3
"""Distance of logits below which the kernels of another batch shape may choose the other token."""


class Answer(Struct, frozen=True):
    """The likeliest tokens after a prompt, and how clear each choice was."""

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    margins: tuple[float, ...]
    """Distance between the two highest logits."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def check(self, text: str) -> None:
        """Check that *text* is this answer, up to a first choice that was nearly a tie."""
        rest = text
        for index, piece in enumerate(self.pieces):
            if not rest.startswith(piece):
                assert self.margins[index] < TIE, (
                    f"token {index} should be {piece!r}, by {self.margins[index]:.4f}: "
                    f"{text!r} is not {self.text!r}"
                )
                return
            rest = rest.removeprefix(piece)
        assert not rest, f"{text!r} goes on after {self.text!r}"


class Reference:
    """A model and a context for one sequence."""

    def __init__(self, path: Path, n_ctx: int = 512) -> None:
        self._model = llama.llama_model_load_from_file(
            str(path).encode(), llama.llama_model_default_params()
        )
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = n_ctx
        parameters.n_threads = parameters.n_threads_batch = 1
        self._context = llama.llama_init_from_model(self._model, parameters)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._n_vocab = llama.llama_vocab_n_tokens(self._vocab)

    def greedy(self, prompt: tuple[int, ...], n_tokens: int, n_batch: int = 512) -> Answer:
        """Return the *n_tokens* likeliest tokens after *prompt*, one after the other.

        The prompt is taken in pieces of *n_batch* tokens.
        """
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        made: list[int] = []
        margins: list[float] = []
        for start in range(0, len(prompt), n_batch):
            self._decode(prompt[start : start + n_batch])
        while True:
            logits = llama.llama_get_logits_ith(self._context, -1)[: self._n_vocab]
            token = max(range(self._n_vocab), key=logits.__getitem__)
            second, first = sorted(logits)[-2:]
            made.append(token)
            margins.append(first - second)
            if len(made) == n_tokens:
                break
            self._decode((token,))
        return Answer(tuple(made), tuple(map(self._piece, made)), tuple(margins))

    def logits(self, prompt: tuple[int, ...]) -> list[float]:
        """Return the logits of all tokens after *prompt*."""
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        self._decode(prompt)
        return list(llama.llama_get_logits_ith(self._context, -1)[: self._n_vocab])

    def close(self) -> None:
        """Free both."""
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)

    def _decode(self, tokens: tuple[int, ...]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        batch = llama.llama_batch_get_one(array, len(tokens))
        assert llama.llama_decode(self._context, batch) == 0

    def _piece(self, token: int) -> str:
        buffer = ctypes.create_string_buffer(64)
        size = llama.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:size].decode()


def greedy(path: Path, prompt: tuple[int, ...], n_tokens: int) -> str:
    """Return the text of the *n_tokens* likeliest tokens after *prompt*."""
    reference = Reference(path)
    answer = reference.greedy(prompt, n_tokens)
    reference.close()
    return answer.text
