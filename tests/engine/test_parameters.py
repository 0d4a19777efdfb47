"""What llama.cpp is told when it loads."""

from __future__ import annotations

import os

import pytest

from llm_router_mw.engine.native import llama
from llm_router_mw.engine.parameters import context_parameters, model_parameters, usable_cores
from llm_router_mw.types import LoadOptions, Placement


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == 7


def test_a_placement_is_stronger_than_the_options() -> None:
    options = LoadOptions(n_gpu_layers=7, split_mode="row", main_gpu=1, n_ctx=300)
    placement = Placement(n_gpu_layers=3, split_mode="layer", n_ctx=1000)
    parameters = model_parameters(options, placement)
    assert parameters.n_gpu_layers == 3
    assert parameters.split_mode == llama.LLAMA_SPLIT_MODE_LAYER
    assert parameters.main_gpu == 0
    assert context_parameters(options, 2048, placement).n_ctx == 1000
    assert context_parameters(options, 2048, Placement()).n_ctx == 300


def test_without_a_placement_the_options_say_it() -> None:
    parameters = model_parameters(LoadOptions(n_gpu_layers=7, split_mode="row", main_gpu=1))
    assert (parameters.n_gpu_layers, parameters.main_gpu) == (7, 1)
    assert parameters.split_mode == llama.LLAMA_SPLIT_MODE_ROW
    assert context_parameters(LoadOptions(), 2048).n_ctx == 2048


@pytest.mark.parametrize(
    ("mapped", "locked", "mode"),
    [
        (True, False, llama.LLAMA_LOAD_MODE_MMAP),
        (False, False, llama.LLAMA_LOAD_MODE_NONE),
        (True, True, llama.LLAMA_LOAD_MODE_MMAP_MLOCK),
        (False, True, llama.LLAMA_LOAD_MODE_MLOCK),
    ],
)
def test_how_the_file_is_read(mapped: bool, locked: bool, mode: int) -> None:
    options = LoadOptions(use_mmap=mapped, use_mlock=locked)
    assert model_parameters(options).load_mode == mode


def test_the_cache_and_attention_are_as_the_options_say() -> None:
    options = LoadOptions(
        type_k="q8_0",
        type_v="bf16",
        flash_attn="on",
        swa_full=True,
        offload_kqv=False,
        op_offload=False,
    )
    parameters = context_parameters(options, 2048)
    assert (parameters.type_k, parameters.type_v) == (8, 30)
    assert parameters.flash_attn_type == llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert parameters.swa_full
    assert not parameters.offload_kqv
    assert not parameters.op_offload


def test_an_embedding_context_gives_all_its_rows_out() -> None:
    parameters = context_parameters(LoadOptions(pooling="cls", n_batch=1024), 2048)
    assert (parameters.n_ubatch, parameters.n_outputs_max) == (1024, 0)
    assert parameters.embeddings
    assert parameters.kv_unified
    assert parameters.pooling_type == llama.LLAMA_POOLING_TYPE_CLS
