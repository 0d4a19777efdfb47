"""Bytes of recurrent states."""

from __future__ import annotations

from llm_router_mw.memory.hyperparameters import read_hyperparameters
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.recurrent import recurrent_bytes
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import LoadOptions
from tests.support.model_headers import header

SSM = {"ssm.conv_kernel": 4, "ssm.inner_size": 2048, "ssm.state_size": 128, "ssm.group_count": 1}
STATE = 4 * (3 * (2048 + 2 * 128) + 128 * 2048)
LAYERS = Layers(gpus=("a",), visible=True, repeating=("host", "a", "a", "a"), output="a")


def states(architecture: str, *, offloaded: bool = True, **options: int) -> dict[str, int]:
    shape = read_hyperparameters(header(architecture, SSM))
    context = resolve_context(shape, LoadOptions(**options))  # type: ignore[arg-type]
    return recurrent_bytes(shape, context, LAYERS, offloaded=offloaded)


def test_each_sequence_has_a_state_in_each_layer() -> None:
    assert states("mamba2", n_parallel=3) == {"host": 3 * STATE, "a": 9 * STATE}


def test_the_length_of_the_context_does_not_matter() -> None:
    assert states("mamba2", n_ctx=256) == states("mamba2", n_ctx=65_536)


def test_they_may_be_kept_on_the_host() -> None:
    assert states("mamba2", offloaded=False, n_parallel=1) == {"host": 4 * STATE}


def test_only_recurrent_layers_count() -> None:
    assert states("qwen35", n_parallel=1) == {"host": STATE, "a": 2 * STATE}
    assert states("llama") == {}
