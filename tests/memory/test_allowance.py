"""One number for all devices, or numbers by whatever name a device goes."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.memory.allowance import Allowance, allowance_bytes, unknown_names
from llm_router_mw.types import Device
from llm_router_mw.units import MIB

GPU = Device(
    id="GPU-1",
    pool="GPU-1",
    kind="cuda",
    name="NVIDIA H200",
    total_bytes=1,
    free_bytes=1,
    pci_id="0000:19:00.0",
    backend_name="CUDA0",
)
BARE = Device(id="MTL0", pool="MTL0", kind="metal", name="Apple M4", total_bytes=1, free_bytes=1)


@pytest.mark.parametrize(
    ("option", "mib"),
    [
        (None, None),
        (0, 0),
        (512, 512),
        ({}, None),
        ({"default": 5}, 5),
        ({"GPU-2": 5}, None),
        ({"cuda": 4, "default": 5}, 4),
        ({"CUDA0": 3, "cuda": 4}, 3),
        ({"0000:19:00.0": 2, "CUDA0": 3}, 2),
        ({"GPU-1": 0, "0000:19:00.0": 2, "default": 5}, 0),
    ],
)
def test_the_most_exact_name_counts(option: Allowance | None, mib: int | None) -> None:
    assert allowance_bytes(option, GPU) == (None if mib is None else mib * MIB)


def test_what_a_device_lacks_is_no_name() -> None:
    assert allowance_bytes({"": 7}, BARE) is None


@pytest.mark.parametrize(
    ("option", "unknown"),
    [
        (None, set()),
        (5, set()),
        ({"default": 1, "GPU-1": 1, "metal": 1}, set()),
        ({"GPU-2": 1, "vulkan": 2, "CUDA0": 3}, {"GPU-2", "vulkan"}),
    ],
)
def test_names_that_no_device_has(option: Any, unknown: set[str]) -> None:
    assert unknown_names(option, [GPU, BARE]) == unknown
