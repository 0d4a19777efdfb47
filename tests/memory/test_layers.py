"""Where layers go: llama.cpp's arithmetic, single precision included."""

from __future__ import annotations

from collections import Counter

import pytest

from llm_router_mw.memory.layers import Layers, place_layers, shares
from llm_router_mw.types import Device, Placement

GIB = 1024**3


def gpu(name: str, free_bytes: int = 24 * GIB) -> Device:
    return Device(
        id=name,
        pool=name,
        kind="cuda",
        name=name,
        total_bytes=24 * GIB,
        free_bytes=free_bytes,
    )


def place(n_layer: int = 4, **placement: object) -> Layers:
    options = {"split_mode": "layer", "n_gpu_layers": -1, **placement}
    return place_layers(Placement(**options), [gpu("a"), gpu("b")], n_layer)  # type: ignore[arg-type]


def drawn(layers: Layers) -> str:
    """Return the layers and, behind a bar, the output: ``h`` is the host."""
    return "".join(each[0] for each in layers.repeating) + "|" + layers.output[0]


def test_without_gpus_everything_is_on_the_host() -> None:
    layers = place(devices=())
    assert drawn(layers) == "hhhh|h"
    assert layers.used == ("host",)
    assert not layers.visible


@pytest.mark.parametrize(
    ("n_gpu_layers", "expected"),
    [
        (0, "hhhh|h"),
        # The output layer is the first to go to the GPU.
        (1, "hhhh|a"),
        (2, "hhha|a"),
        (4, "haaa|a"),
        (5, "aaaa|a"),
        (99, "aaaa|a"),
        (-1, "aaaa|a"),
    ],
)
def test_the_last_layers_go_to_the_gpu(n_gpu_layers: int, expected: str) -> None:
    layers = place(devices=("a",), n_gpu_layers=n_gpu_layers)
    assert drawn(layers) == expected
    assert layers.visible


@pytest.mark.parametrize(
    ("split", "n_gpu_layers", "expected"),
    [
        ((1, 1), -1, "aaab|b"),
        ((3, 1), -1, "aaaa|b"),
        ((0, 1), -1, "bbbb|b"),
        ((1, 0), -1, "aaaa|a"),
        ((1, 1), 3, "hhaa|b"),
        # A share too few is none.
        ((1,), -1, "aaaa|a"),
    ],
)
def test_several_gpus_share_by_their_parts(
    split: tuple[float, ...], n_gpu_layers: int, expected: str
) -> None:
    layers = place(devices=("a", "b"), tensor_split=split, n_gpu_layers=n_gpu_layers)
    assert drawn(layers) == expected


def test_without_parts_free_memory_decides() -> None:
    devices = [gpu("a", 3 * GIB), gpu("b", GIB)]
    placement = Placement(devices=("a", "b"), n_gpu_layers=-1, split_mode="layer")
    assert shares(placement, ("a", "b"), {device.id: device for device in devices}) == (
        3.0 * GIB,
        1.0 * GIB,
    )
    assert Counter(place_layers(placement, devices, 31).repeating) == {"a": 24, "b": 7}


def test_gpus_of_which_nothing_is_known_share_alike() -> None:
    placement = Placement(devices=("a", "x"), n_gpu_layers=-1, split_mode="layer")
    assert Counter(place_layers(placement, [gpu("a", 0)], 31).repeating) == {"a": 16, "x": 15}


def test_one_gpu_may_take_everything() -> None:
    layers = place(devices=("a", "b"), split_mode="none", main_gpu=1)
    assert drawn(layers) == "bbbb|b"
    assert layers.gpus == ("b",)


def test_gpus_work_at_the_same_time_only_with_all_layers() -> None:
    assert place(devices=("a", "b"), tensor_split=(1, 1)).is_pipelined
    assert not place(devices=("a", "b"), tensor_split=(1, 1), n_gpu_layers=4).is_pipelined
    assert not place(devices=("a",)).is_pipelined


def test_parts_are_rounded_as_llama_cpp_rounds_them() -> None:
    # In double precision the second layer would still be the first GPU's.
    layers = place(n_layer=6, devices=("a", "b", "c"), tensor_split=(0.1, 0.1, 0.5))
    assert drawn(layers) == "abcccc|c"
