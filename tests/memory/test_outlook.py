"""Whether a model will fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.memory.outlook import Outlook, look_ahead
from llm_router_mw.types import Device, DeviceKind, LoadOptions, Model, Placement
from tests.support.model_headers import NOTHING, Metadata, write_sparse

MIB, GIB = 1024**2, 1024**3
FULL = Placement(devices=("a",), n_gpu_layers=-1, split_mode="layer")


def device(name: str, free_bytes: int, pool: str = "", kind: DeviceKind = "cuda") -> Device:
    return Device(
        id=name,
        pool=pool or name,
        kind=kind,
        name=name,
        total_bytes=2 * free_bytes,
        free_bytes=free_bytes,
    )


def outlook(
    folder: Path,
    *devices: Device,
    architecture: str = "llama",
    metadata: Metadata = NOTHING,
    margin_bytes: int = 0,
    **options: Any,
) -> Outlook:
    path = write_sparse(folder / "m.gguf", architecture, {"context_length": 131_072, **metadata})
    model = Model(id="m", path=str(path), source="test", options=LoadOptions(**options))
    return look_ahead(model, FULL, devices, margin_bytes)


def test_a_model_that_fits(tmp_path: Path) -> None:
    found = outlook(tmp_path, device("a", 4 * GIB), device("host", 8 * GIB), margin_bytes=GIB)
    gpu, host = found.devices
    assert found.fits
    assert (found.model, found.architecture, found.n_ctx) == ("m", "llama", 8192)
    assert gpu.free_after_bytes == 3 * GIB - gpu.upper_bytes
    assert host.free_after_bytes == 7 * GIB - host.upper_bytes
    assert gpu.expected_bytes == gpu.expected.total_bytes
    assert found.largest_n_ctx == found.largest_n_ctx_quantised == 131_072


def test_a_model_that_does_not(tmp_path: Path) -> None:
    found = outlook(tmp_path, device("a", GIB), device("host", 8 * GIB), n_ctx=65_536)
    assert not found.fits
    assert found.devices[0].free_after_bytes < 0
    assert 0 < found.largest_n_ctx < found.largest_n_ctx_quantised < 65_536


def test_devices_that_share_a_pool_share_what_is_left(tmp_path: Path) -> None:
    found = outlook(tmp_path, device("a", 4 * GIB, "host"), device("host", 4 * GIB))
    gpu, host = found.devices
    assert gpu.free_after_bytes == host.free_after_bytes
    assert gpu.free_after_bytes == 4 * GIB - gpu.upper_bytes - host.upper_bytes


def test_devices_that_are_not_used_are_left_out(tmp_path: Path) -> None:
    found = outlook(tmp_path, device("b", GIB), device("host", 8 * GIB))
    assert [each.id for each in found.devices] == ["host"]


@pytest.mark.parametrize(
    ("architecture", "metadata", "options"),
    [("llama", {}, {"flash_attn": "off"}), ("mamba2", {"attention.head_count": 0}, {})],
)
def test_no_hint_where_a_quantised_cache_is_no_help(
    tmp_path: Path, architecture: str, metadata: Metadata, options: dict[str, Any]
) -> None:
    found = outlook(
        tmp_path, device("a", GIB), architecture=architecture, metadata=metadata, **options
    )
    assert found.largest_n_ctx_quantised == 0
