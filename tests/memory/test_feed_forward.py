"""Feed-forward networks, by the shapes of their matrices."""

from __future__ import annotations

import pytest

from llm_router_mw.memory.feed_forward import FeedForward, Gate, read_feed_forwards
from tests.support.model_headers import Tensors, header


def read(**shapes: tuple[int, ...]) -> FeedForward:
    """Return the network of a layer with matrices of such shapes."""
    tensors: Tensors = {
        f"blk.0.ffn_{name}.weight": ("f32", shape) for name, shape in shapes.items()
    }
    networks = read_feed_forwards([header(tensors=tensors)], 1)
    assert networks is not None
    return networks[0]


@pytest.mark.parametrize(
    ("shapes", "gate"),
    [
        ({"up": (64, 256), "gate": (64, 256), "down": (256, 64)}, Gate.OWN),
        ({"up": (64, 256), "down": (256, 64)}, Gate.NONE),
        ({"up": (64, 512), "down": (256, 64)}, Gate.FUSED),
        ({"gate_up": (64, 512), "down": (256, 64)}, Gate.FUSED),
        ({"up": (64, 256)}, Gate.NONE),
        ({"up": (64, 256), "gate": (64, 256)}, Gate.OWN),
    ],
)
def test_a_dense_network(shapes: dict[str, tuple[int, ...]], gate: Gate) -> None:
    assert read(**shapes) == FeedForward(n_ff=256, gate=gate)


def test_experts_and_what_is_shared() -> None:
    found = read(
        up_exps=(64, 128, 8),
        gate_exps=(64, 128, 8),
        down_exps=(128, 64, 8),
        up_shexp=(64, 32),
        down_shexp=(32, 64),
    )
    assert found == FeedForward(n_ff_exp=128, n_ff_shared=32)
    assert read(gate_up_exps=(64, 256, 8), down_exps=(128, 64, 8)).n_ff_exp == 128


def test_each_layer_has_its_own_and_some_have_none() -> None:
    tensors: Tensors = {
        "blk.0.ffn_up.weight": ("f32", (64, 256)),
        "blk.2.ffn_up.weight": ("f32", (64, 512)),
        "blk.7.ffn_up.weight": ("f32", (64, 1024)),
    }
    networks = read_feed_forwards([header(tensors=tensors)], 3)
    assert networks is not None
    assert [network.n_ff for network in networks] == [256, 0, 512]


def test_without_any_matrix_nothing_is_known() -> None:
    assert read_feed_forwards([header()], 3) is None
    biases: Tensors = {
        "blk.0.ffn_up.bias": ("f32", (64,)),
        "blk.0.ffn_up.weight": ("f32", (64,)),
    }
    assert read_feed_forwards([header(tensors=biases)], 3) is None
