"""Where LoRA adapters lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.memory.adapters import adapter_bytes
from llm_router_mw.memory.hyperparameters import read_hyperparameters
from llm_router_mw.memory.layers import Layers
from tests.support.model_headers import Tensors, header, write_sparse

SHAPE = read_hyperparameters(header())
LAYERS = Layers(gpus=("a",), visible=True, repeating=("host", "a", "a", "a"), output="a")
ADAPTER: Tensors = {
    "blk.0.attn_q.weight.lora_a": ("f32", (1024, 8)),
    "blk.0.attn_q.weight.lora_b": ("f32", (8, 1024)),
    "blk.1.attn_q.weight.lora_a": ("f32", (1024, 8)),
    "output.weight.lora_b": ("f32", (8, 1)),
}


def test_each_matrix_lies_with_the_one_that_it_changes(tmp_path: Path) -> None:
    path = str(write_sparse(tmp_path / "lora.gguf", tensors=ADAPTER))
    assert adapter_bytes([path], SHAPE, LAYERS) == {"host": 2 * 32_768, "a": 32_768 + 128}
    assert adapter_bytes([path, path], SHAPE, LAYERS)["host"] == 4 * 32_768
    assert adapter_bytes([], SHAPE, LAYERS) == {}


def test_a_missing_adapter_is_an_error() -> None:
    with pytest.raises(ModelFileError, match=r"no\.gguf cannot be read"):
        adapter_bytes(["no.gguf"], SHAPE, LAYERS)
