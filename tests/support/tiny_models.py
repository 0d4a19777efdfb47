"""Writers of tiny GGUF files that llama.cpp really loads: random weights, real tokenizers.

The same arguments give the same bytes. A generating model speaks in one of three ways: at random
without an end (the default), at random with an end that comes soon (``eos_bias``), or it recites a
given list of pieces whatever it is asked (``says``).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

from tests.support.tiny_vocabulary import (
    BOS,
    EOS,
    FIRST_PIECE,
    IM_END,
    IM_START,
    UNK,
    WORDS,
    make_vocabulary,
)

__all__ = [
    "BOS",
    "EOS",
    "FIRST_PIECE",
    "IM_END",
    "IM_START",
    "UNK",
    "write_tiny_bert",
    "write_tiny_llama",
]

DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_GAIN = 40.0
"""Logit of the next piece of a recital; all others stay 15 below it."""


def _recital(output: Any, embedding: Any, script: list[int]) -> None:
    """Make each token of *script* bring up the next one, and any other token the first."""
    output[:] = 0.0
    for token, following in zip(script, [*script[1:], EOS], strict=True):
        direction = embedding[token].copy()
        direction[0] = 0.0
        output[following] += direction * (_GAIN / float(direction @ direction))
    output[script[0], 0] = 0.6 * _GAIN


def write_tiny_llama(
    path: Path,
    *,
    seed: int = 0,
    n_ctx_train: int = 2048,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_vocab: int = 0,
    eos_bias: float = -1000.0,
    speaks_bytes: bool = False,
    says: Sequence[str] = (),
    chat_template: str | None = DEFAULT_CHAT_TEMPLATE,
    add_bos: bool = True,
    name: str = "tiny-llama",
) -> Path:
    """Write a Llama-shaped model of about half a megabyte and return its path.

    Args:
        path: the file; its folder must exist.
        seed: of the weights.
        n_vocab: pads the vocabulary to so many tokens (0: as many as needed, about 400).
        eos_bias: added to the logits of the end tokens: the default never ends, about 7 ends
            within some ten tokens, 1000 at once.
        speaks_bytes: let it choose byte tokens too, most of which make no valid UTF-8; without
            them each token is at least one ASCII character.
        says: pieces that the model recites after any prompt, then it ends. Each must be
            distinct; one that is written ``<0xE2>`` is that byte. Sampling does not change them.
        chat_template: None leaves it out.
        add_bos: whether the tokenizer puts the beginning-of-sequence token in front.
    """
    rng = np.random.default_rng(seed)
    vocabulary = make_vocabulary(says, n_vocab)
    size, n_ff = len(vocabulary.texts), 2 * n_embd

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Any:
        return (rng.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    # Dimension 0 is 1 for every token and no layer writes to it: it works as the constant that
    # the architecture lacks, so that column 0 of the output matrix is a bias.
    embedding = rng.standard_normal((size, n_embd)).astype(np.float32)
    embedding[:, 0] = 1.0
    output = matrix(size, n_embd, 3.0)
    output[:, 0] = 0.0
    output[[EOS, IM_END], 0] = eos_bias
    # What is never shown as text is no fit answer of a model that must be counted by its text.
    output[[UNK, BOS, IM_START], 0] = -1000.0
    if not speaks_bytes:
        output[EOS + 1 : IM_START, 0] = -1000.0
    loudness = 1.0
    if says:
        _recital(output, embedding, [vocabulary.index(piece) for piece in says])
        loudness = 0.0

    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(n_embd // n_head)
    vocabulary.write_to(writer, add_bos=add_bos)
    if chat_template is not None:
        writer.add_chat_template(chat_template)

    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", np.ones(n_embd, np.float32))
    writer.add_tensor("output.weight", output)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        into_residual = {
            "attn_output": matrix(n_embd, n_embd, 2.0 * loudness),
            "ffn_down": matrix(n_embd, n_ff, 2.0 * loudness),
        }
        for weights in into_residual.values():
            weights[0] = 0.0
        matrices = into_residual | {
            "attn_q": matrix(n_embd, n_embd, 1.5),
            "attn_k": matrix(n_embd, n_embd, 1.5),
            "attn_v": matrix(n_embd, n_embd),
            "ffn_gate": matrix(n_ff, n_embd),
            "ffn_up": matrix(n_ff, n_embd),
        }
        for part, weights in matrices.items():
            writer.add_tensor(f"{block}.{part}.weight", weights)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(n_embd, np.float32))
    _write(writer)
    return path


def write_tiny_bert(
    path: Path,
    *,
    seed: int = 0,
    n_ctx_train: int = 512,
    n_embd: int = 32,
    n_layer: int = 2,
    n_head: int = 4,
    ranks: bool = False,
) -> Path:
    """Write a BERT-shaped encoder with a word-piece tokenizer, and return its path.

    One that *ranks* has a classification head with one output, for pooling ``rank``.
    """
    rng = np.random.default_rng(seed)
    texts = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    types = [TokenType.CONTROL] * len(texts)
    letters = string.ascii_lowercase + string.digits
    pieces = ["▁" + letter for letter in letters] + list(letters)
    pieces += ["▁" + mark for mark in string.punctuation] + ["▁" + word for word in WORDS]
    texts += pieces
    types += [TokenType.NORMAL] * len(pieces)
    n_ff = 2 * n_embd

    def matrix(rows: int, columns: int) -> Any:
        return (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    def zeros(length: int) -> Any:
        return np.zeros(length, np.float32)

    writer = GGUFWriter(path, "bert")
    writer.add_name("tiny-bert")
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(texts)
    writer.add_token_types([int(kind) for kind in types])
    writer.add_token_type_count(2)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    writer.add_tensor("token_embd.weight", matrix(len(texts), n_embd))
    writer.add_tensor("position_embd.weight", matrix(n_ctx_train, n_embd))
    writer.add_tensor("token_types.weight", matrix(2, n_embd))
    norms = ["token_embd_norm"]
    for layer in range(n_layer):
        block = f"blk.{layer}"
        norms += [f"{block}.attn_output_norm", f"{block}.layer_output_norm"]
        shapes = {"attn_q": (n_embd, n_embd), "attn_k": (n_embd, n_embd)}
        shapes |= {"attn_v": (n_embd, n_embd), "attn_output": (n_embd, n_embd)}
        shapes |= {"ffn_up": (n_ff, n_embd), "ffn_down": (n_embd, n_ff)}
        for part, (rows, columns) in shapes.items():
            writer.add_tensor(f"{block}.{part}.weight", matrix(rows, columns))
            writer.add_tensor(f"{block}.{part}.bias", zeros(rows))
    for norm in norms:
        writer.add_tensor(f"{norm}.weight", np.ones(n_embd, np.float32))
        writer.add_tensor(f"{norm}.bias", zeros(n_embd))
    if ranks:
        for part, rows in {"cls": n_embd, "cls.output": 1}.items():
            writer.add_tensor(f"{part}.weight", matrix(rows, n_embd))
            writer.add_tensor(f"{part}.bias", zeros(rows))
    _write(writer)
    return path


def _write(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
