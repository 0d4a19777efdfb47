"""The GPUs that CUDA would see are those that the router sees, in the same order."""

from __future__ import annotations

import pytest

from llm_router_mw.memory.visible import order_is_unknown, visible_devices
from llm_router_mw.types import Device


def gpu(uuid: str, name: str = "NVIDIA H200") -> Device:
    return Device(id=uuid, pool=uuid, kind="cuda", name=name, total_bytes=8, free_bytes=8)


PARTS = [gpu("MIG-1"), gpu("MIG-2")]
GPUS = [[gpu("GPU-aa1")], [gpu("GPU-aa2")], PARTS, []]


def seen(setting: str | None) -> list[str]:
    environ = {} if setting is None else {"CUDA_VISIBLE_DEVICES": setting}
    return [device.id for device in visible_devices(GPUS, environ)]


@pytest.mark.parametrize(
    ("setting", "ids"),
    [
        (None, ["GPU-aa1", "GPU-aa2", "MIG-1", "MIG-2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", ["GPU-aa2"]),
        ("1, 0", ["GPU-aa2", "GPU-aa1"]),
        ("0,7,1", ["GPU-aa1"]),
        ("0,0,1", ["GPU-aa1"]),
        ("3,0", []),
        ("GPU-aa2,MIG-2", ["GPU-aa2", "MIG-2"]),
        ("GPU-aa", []),
        ("MIG-1", ["MIG-1"]),
        ("2", ["MIG-1"]),
    ],
)
def test_the_setting_is_read_as_cuda_reads_it(setting: str | None, ids: list[str]) -> None:
    assert seen(setting) == ids


@pytest.mark.parametrize(
    ("environ", "unknown"),
    [
        ({}, False),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a"}, False),
        ({"CUDA_VISIBLE_DEVICES": "0"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, False),
    ],
)
def test_indexes_of_different_gpus_need_an_order(environ: dict[str, str], unknown: bool) -> None:
    assert order_is_unknown([[gpu("a", "slow")], [gpu("b", "fast")]], environ) is unknown
    assert not order_is_unknown([[gpu("a")], [gpu("b")]], environ)
