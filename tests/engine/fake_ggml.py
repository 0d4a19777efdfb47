"""GPUs that ggml would see, and buffer types of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from llm_router_mw.engine import backends

CPU, GPU, IGPU, ACCELERATOR = 0, 1, 2, 3


@dataclass
class FakeDevice:
    """A device, known by its place in the list."""

    name: str
    type: int = GPU
    address: str | None = None
    registry: str = "CUDA"
    total: int = 1000
    free: int = 600
    buffer: str | None = None


@dataclass
class FakeBuffer:
    """A buffer type, known by the number it is given."""

    name: str
    device: str = ""
    is_host: bool = False


def install(
    monkeypatch: pytest.MonkeyPatch,
    devices: list[FakeDevice],
    buffers: Mapping[int, FakeBuffer] = {},
) -> None:
    """Let ggml have *devices* (pointers from 1 on) and *buffers*, by their pointers."""

    def properties(pointer: int, target: Any) -> None:
        device, found = devices[pointer - 1], target._obj
        found.name = device.name.encode()
        found.description = f"{device.name}, described".encode()
        found.memory_free, found.memory_total = device.free, device.total
        found.type = device.type
        found.device_id = device.address.encode() if device.address else None

    def owner(buffer: int) -> int | None:
        names = [device.name for device in devices]
        name = buffers[buffer].device
        return names.index(name) + 1 if name in names else None

    fakes: dict[str, Any] = {
        "_count": lambda: len(devices),
        "_get": lambda index: index + 1,
        "_properties": properties,
        "_registry": lambda pointer: pointer,
        "_registry_name": lambda pointer: devices[pointer - 1].registry.encode(),
        "_buffer_type": lambda pointer: 100 + pointer if devices[pointer - 1].buffer else None,
        "_buffer_name": lambda number: (
            buffers[number].name if number in buffers else str(devices[number - 101].buffer)
        ).encode(),
        "_buffer_is_host": lambda number: buffers[number].is_host,
        "_buffer_device": owner,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(backends, name, fake)
