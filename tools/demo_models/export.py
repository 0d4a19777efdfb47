"""Writes a trained network and its tokenizer as one GGUF file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch

from .dialogue import CHAT_TEMPLATE
from .model import NORM_EPSILON, ROPE_BASE, Llama
from .tokenizer import BEGIN, END, UNKNOWN, Tokenizer

_NAMES = {
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.out": "attn_output",
    "forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}


def export(model: Llama, tokenizer: Tokenizer, path: Path, *, name: str, about: str) -> None:
    """Write ``model`` to ``path``: matrices as Q8_0, norms as F32.

    The network itself is given the rounded weights, so what is measured afterwards is the file.
    """
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, model, name, about)
    _add_tokenizer(writer, tokenizer)
    for parameter, weight in model.named_parameters():
        values = weight.detach().numpy()
        if values.ndim == 2:
            blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(
                _tensor_name(parameter), blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0
            )
            rounded = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
            weight.data.copy_(torch.from_numpy(rounded.reshape(values.shape)))
        else:
            writer.add_tensor(_tensor_name(parameter), values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, model: Llama, name: str, about: str) -> None:
    shape = model.shape
    writer.add_name(name)
    writer.add_description(about)
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    kinds = [gguf.TokenType.NORMAL] * len(tokenizer)
    for token in tokenizer.control:
        kinds[tokenizer.ids[token]] = gguf.TokenType.CONTROL
    kinds[tokenizer.ids[UNKNOWN]] = gguf.TokenType.UNKNOWN
    for token in tokenizer.bytes:
        kinds[tokenizer.ids[token]] = gguf.TokenType.BYTE
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_scores(tokenizer.scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(tokenizer.ids[UNKNOWN])
    writer.add_bos_token_id(tokenizer.ids[BEGIN])
    writer.add_eos_token_id(tokenizer.ids[END])
    writer.add_eot_token_id(tokenizer.ids[END])
    # Chats begin with a role token; a leading <s> or space would only cost room.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensor_name(parameter: str) -> str:
    if parameter == "embedding.weight":
        return "token_embd.weight"
    if parameter == "norm.weight":
        return "output_norm.weight"
    _, index, rest = parameter.split(".", 2)
    return f"blk.{index}.{_NAMES[rest.removesuffix('.weight')]}.weight"
