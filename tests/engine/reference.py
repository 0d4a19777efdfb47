"""Greedy generation in the plainest way: one sequence, one token at a time, no engine of ours."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as bindings

llama: Any = bindings


def greedy(path: Path, prompt: tuple[int, ...], n_tokens: int) -> str:
    """Return the text of the *n_tokens* likeliest tokens after *prompt*, one after the other."""
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = 512
    parameters.n_threads = parameters.n_threads_batch = 1
    context = llama.llama_init_from_model(model, parameters)
    vocab = llama.llama_model_get_vocab(model)
    n_vocab = llama.llama_vocab_n_tokens(vocab)
    made: list[int] = []
    for token in prompt:
        _decode(context, token)
    while len(made) < n_tokens:
        logits = llama.llama_get_logits_ith(context, -1)[:n_vocab]
        made.append(max(range(n_vocab), key=logits.__getitem__))
        _decode(context, made[-1])
    text = b"".join(_piece(vocab, token) for token in made).decode()
    llama.llama_free(context)
    llama.llama_model_free(model)
    return text


def _piece(vocab: Any, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(64)
    size = llama.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, False)
    return buffer.raw[:size]


def _decode(context: Any, token: int) -> None:
    batch = llama.llama_batch_get_one((ctypes.c_int32 * 1)(token), 1)
    assert llama.llama_decode(context, batch) == 0
