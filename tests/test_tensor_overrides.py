"""Tensors that the load options send elsewhere."""

from __future__ import annotations

import re

import pytest

from llm_router_mw.tensor_overrides import tensor_overrides
from llm_router_mw.types import LoadOptions, Placement

EXPERTS = ["blk.0.ffn_up_exps.weight", "blk.12.ffn_gate_up_exps.weight", "blk.3.ffn_up_chexps.bias"]
OTHERS = ["blk.0.ffn_up.weight", "blk.0.ffn_up_shexp.weight", "blk.0.ffn_gate_inp.weight"]


def test_nothing_goes_elsewhere_by_default() -> None:
    assert tensor_overrides(LoadOptions()) == ()


def test_named_overrides_come_first_and_in_order() -> None:
    options = LoadOptions(override_tensor=("a=CUDA0", "b=c=CPU"), cpu_moe=True)
    assert tensor_overrides(options)[:2] == (("a", "CUDA0"), ("b=c", "CPU"))
    assert len(tensor_overrides(options)) == 3


@pytest.mark.parametrize("name", EXPERTS)
def test_all_experts(name: str) -> None:
    ((pattern, buffer),) = tensor_overrides(LoadOptions(cpu_moe=True))
    assert buffer == "CPU"
    assert re.search(pattern, name)


@pytest.mark.parametrize("name", OTHERS)
def test_what_all_tokens_go_through_is_no_expert(name: str) -> None:
    ((pattern, _),) = tensor_overrides(LoadOptions(cpu_moe=True))
    assert not re.search(pattern, name)


def test_experts_of_the_first_layers() -> None:
    overrides = tensor_overrides(LoadOptions(n_cpu_moe=2))
    found = [
        layer
        for layer in range(30)
        if any(re.search(pattern, f"blk.{layer}.ffn_up_exps.weight") for pattern, _ in overrides)
    ]
    assert found == [0, 1]


def test_a_placement_may_move_the_experts_of_more_layers() -> None:
    two = tensor_overrides(LoadOptions(n_cpu_moe=2))
    assert tensor_overrides(LoadOptions(), Placement(n_cpu_moe=2)) == two
    assert tensor_overrides(LoadOptions(n_cpu_moe=2), Placement(n_cpu_moe=1)) == two
