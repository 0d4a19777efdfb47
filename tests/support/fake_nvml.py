"""NVML as its Python bindings show it, with answers recorded from real machines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

MIB = 1024 * 1024
GIB = 1024 * MIB

Processes = dict[int, int | None]
"""Bytes by process id; None is what Windows' display driver model answers."""


@dataclass
class FakeGpu:
    """A GPU, or an instance of one."""

    uuid: str
    name: str
    total: int = 0
    free: int = 0
    reserved: int = 0
    bus: int = 1
    domain: int = 0
    memory_errors: tuple[type[Exception], ...] = ()
    """Raised by the questions for version 2 and version 1; the last one also by what follows."""
    instances: Sequence[FakeGpu | None] | None = None
    """None: it cannot be divided. A hole in the list is an index without an instance."""
    divided: bool = True
    compute: Processes | Exception | None = None
    graphics: Processes | Exception | None = None
    error: Exception | None = None


class FakeNvml:
    """Stands for the module ``pynvml``; constants and errors are the real ones."""

    def __init__(self, gpus: Sequence[FakeGpu], error: Exception | None = None) -> None:
        self.gpus = list(gpus)
        self.error = error
        self.count_error: Exception | None = None
        self.started = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        self.started += 1
        if self.error is not None:
            raise self.error

    def nvmlDeviceGetCount(self) -> int:
        if self.count_error is not None:
            raise self.count_error
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        gpu = self.gpus[index]
        if gpu.error is not None:
            raise gpu.error
        return gpu

    def nvmlDeviceGetPciInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(domain=gpu.domain, bus=gpu.bus, device=0)

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, version: int | None = None) -> SimpleNamespace:
        errors = gpu.memory_errors
        if version is None and len(errors) > 1:
            raise errors[1]()
        if version is not None and errors:
            raise errors[0]()
        assert version in (None, pynvml.nvmlMemory_v2)
        used = gpu.total - gpu.free
        if version is None:
            return SimpleNamespace(total=gpu.total, free=gpu.free, used=used)
        return SimpleNamespace(
            total=gpu.total, free=gpu.free, used=used - gpu.reserved, reserved=gpu.reserved
        )

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:
        if gpu.instances is None:
            raise pynvml.NVMLError_NotSupported()
        mode = pynvml.NVML_DEVICE_MIG_ENABLE if gpu.divided else pynvml.NVML_DEVICE_MIG_DISABLE
        return [mode, mode]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:
        return len(gpu.instances or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:
        instance = (gpu.instances or ())[index]
        if instance is None:
            raise pynvml.NVMLError_NotFound()
        return instance

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        return _processes(gpu.compute)

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: FakeGpu) -> list[SimpleNamespace]:
        return _processes(gpu.graphics)


def _processes(recorded: Processes | Exception | None) -> list[SimpleNamespace]:
    if isinstance(recorded, Exception):
        raise recorded
    return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in (recorded or {}).items()]


def install(
    monkeypatch: pytest.MonkeyPatch, *gpus: FakeGpu, error: Exception | None = None
) -> FakeNvml:
    """Let ``import pynvml`` give a machine with *gpus*; with *error*, one without a driver."""
    fake = FakeNvml(gpus, error)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def h200(index: int = 0, **changes: Any) -> FakeGpu:
    """Return a discrete GPU of a server."""
    recorded: dict[str, Any] = {
        "uuid": f"GPU-{index}2f8a1c3-5d7e-4b90-8c6f-1a2b3c4d5e6f",
        "name": "NVIDIA H200",
        "total": 150_754_820_096,
        "free": 150_121_480_192,
        "reserved": 633_339_904,
        "bus": 0x19 + index,
    }
    return FakeGpu(**recorded | changes)


def a100_in_parts() -> FakeGpu:
    """Return a GPU that is divided into two instances, and could have seven."""
    parts = [
        FakeGpu(
            uuid=f"MIG-{letter}a5c1b2d-6c41-5b3d-9f0e-aa0b7e2d4c11",
            name="NVIDIA A100-SXM4-40GB MIG 3g.20gb",
            total=20_937_965_568,
            free=20_897_005_568,
        )
        for letter in "49"
    ]
    return FakeGpu(
        uuid="GPU-7f3e9a40-11c2-4d7b-8e55-0c9d8b7a6f5e",
        name="NVIDIA A100-SXM4-40GB",
        # The whole may be asked by the superuser only.
        memory_errors=(pynvml.NVMLError_NoPermission, pynvml.NVMLError_NoPermission),
        bus=0x65,
        instances=[parts[0], None, parts[1], None, None, None, None],
    )


def gb10(**changes: Any) -> FakeGpu:
    """Return the GPU of a DGX Spark, which has no memory of its own."""
    refused = pynvml.NVMLError_NotSupported
    recorded: dict[str, Any] = {
        "uuid": "GPU-2dee1e25-b3b5-007e-2b55-79f2d0f2ebe5",
        "name": "NVIDIA GB10",
        "domain": 0xF,
        "memory_errors": (refused, refused),
    }
    return FakeGpu(**recorded | changes)


def geforce_on_windows() -> FakeGpu:
    """Return a GPU under WDDM, where the system keeps the processes' shares to itself."""
    return FakeGpu(
        uuid="GPU-c0ffee00-1234-5678-9abc-def012345678",
        name="NVIDIA GeForce RTX 4090",
        total=25_757_220_864,
        free=23_988_805_632,
        compute={41: None, 42: None},
        graphics={41: None, 99: None},
    )
