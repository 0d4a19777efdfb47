"""NVIDIA's GPUs as NVML tells them, on machines of all kinds."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pynvml
import pytest

from llm_router_mw.memory.nvml import NvmlProbe
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.types import HOST, Device
from tests.support import fake_nvml
from tests.support.fake_nvml import GIB, FakeGpu, a100_in_parts, gb10, geforce_on_windows, h200


@pytest.fixture
def probe() -> NvmlProbe:
    return NvmlProbe({})


def test_it_is_a_probe(probe: NvmlProbe) -> None:
    assert isinstance(probe, DeviceProbe)


def test_the_bindings_are_not_loaded_before_they_are_needed() -> None:
    code = "import sys, llm_router_mw.memory.nvml; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Machines


def test_a_discrete_gpu(monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe) -> None:
    gpu = h200()
    fake_nvml.install(monkeypatch, gpu)
    assert list(probe.inventory()) == [
        Device(
            id=gpu.uuid,
            pool=gpu.uuid,
            kind="cuda",
            name="NVIDIA H200",
            total_bytes=150_754_820_096,
            free_bytes=150_121_480_192,
            pci_id="0000:19:00.0",
        )
    ]


def test_what_is_free_is_asked_anew_each_time(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe
) -> None:
    gpu = h200()
    fake = fake_nvml.install(monkeypatch, gpu)
    probe.inventory()
    gpu.free = 7 * GIB
    [device] = probe.inventory()
    assert device.free_bytes == 7 * GIB
    assert fake.started == 1


def test_an_old_driver_is_asked_the_old_way(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe
) -> None:
    gpu = h200(memory_errors=(pynvml.NVMLError_FunctionNotFound,))
    fake_nvml.install(monkeypatch, gpu)
    [device] = probe.inventory()
    assert (device.total_bytes, device.free_bytes) == (gpu.total, gpu.free)


def test_the_instances_of_a_divided_gpu_are_devices(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe
) -> None:
    fake_nvml.install(monkeypatch, a100_in_parts(), h200())
    first, second, whole = probe.inventory()
    assert first.id.startswith("MIG-4")
    assert second.id.startswith("MIG-9")
    assert {first.pci_id, second.pci_id} == {"0000:65:00.0"}
    assert first.pool == first.id
    assert first.total_bytes == 20_937_965_568
    assert whole.id == h200().uuid


def test_a_gpu_that_could_be_divided_and_is_not(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe
) -> None:
    fake_nvml.install(monkeypatch, h200(instances=[None] * 7, divided=False))
    assert [device.id for device in probe.inventory()] == [h200().uuid]


@pytest.mark.parametrize(
    "gpu",
    [
        gb10(),
        gb10(memory_errors=(pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NotSupported)),
        gb10(memory_errors=()),  # all numbers 0
        gb10(memory_errors=(), total=130 * GIB, free=90 * GIB),  # the host's
        FakeGpu(uuid="GPU-0", name="Orin (nvgpu)", domain=0xF, total=64 * GIB, free=60 * GIB),
    ],
    ids=["refused", "refused the old way", "zeros", "the host's", "Jetson"],
)
def test_a_gpu_without_memory_of_its_own_draws_from_the_hosts(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe, gpu: FakeGpu
) -> None:
    fake_nvml.install(monkeypatch, gpu)
    [device] = probe.inventory()
    assert (device.id, device.pool) == (gpu.uuid, HOST)
    assert (device.total_bytes, device.free_bytes) == (0, 0)
    assert device.pci_id == "000f:01:00.0"
    assert "host's memory" in device.note


def test_memory_that_cannot_be_read_is_unknown(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe
) -> None:
    fake_nvml.install(monkeypatch, h200(memory_errors=(pynvml.NVMLError_NoPermission,) * 2))
    [device] = probe.inventory()
    assert (device.pool, device.total_bytes) == (device.id, 0)
    assert "Insufficient Permissions" in device.note


@pytest.mark.parametrize(
    "error", [pynvml.NVMLError_LibraryNotFound(), pynvml.NVMLError_DriverNotLoaded()]
)
def test_without_a_driver_there_are_no_devices_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    probe: NvmlProbe,
    error: pynvml.NVMLError,
) -> None:
    fake = fake_nvml.install(monkeypatch, error=error)
    with caplog.at_level(logging.DEBUG, "llm_router_mw.memory"):
        for _ in range(3):
            assert list(probe.inventory()) == []
            assert probe.used_bytes([1]) == {}
    [line] = caplog.messages
    assert line == f"no NVIDIA GPUs: {error}"
    assert fake.started == 1


def test_a_gpu_that_fell_off_the_bus_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_nvml.install(monkeypatch, h200(0, error=pynvml.NVMLError_GpuIsLost()), h200(1))
    probe = NvmlProbe({"CUDA_VISIBLE_DEVICES": "1"})
    for _ in range(2):
        assert [device.id for device in probe.inventory()] == [h200(1).uuid]
    assert caplog.messages == ["GPU 0 cannot be used: GPU is lost"]


def test_a_driver_that_goes_away_takes_its_devices_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, probe: NvmlProbe
) -> None:
    fake = fake_nvml.install(monkeypatch, h200())
    probe.inventory()
    fake.count_error = pynvml.NVMLError_Unknown()
    for _ in range(2):
        assert list(probe.inventory()) == []
    assert caplog.messages == ["the NVIDIA driver does not answer: Unknown Error"]


# What may be used


def test_gpus_that_cuda_would_not_see_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, h200(0), h200(1), h200(2))
    probe = NvmlProbe({"CUDA_VISIBLE_DEVICES": f"2,{h200(0).uuid}"})
    assert [device.id for device in probe.inventory()] == [h200(2).uuid, h200(0).uuid]


def test_indexes_of_different_gpus_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_nvml.install(monkeypatch, h200(0), h200(1, name="NVIDIA L4"))
    probe = NvmlProbe({"CUDA_VISIBLE_DEVICES": "1"})
    for _ in range(2):
        probe.inventory()
    [line] = caplog.messages
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in line


def test_the_backend_may_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, h200())
    [device] = NvmlProbe({}, "vulkan").inventory()
    assert device.kind == "vulkan"


def test_without_a_backend_no_gpu_is_there_to_be_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_nvml.install(monkeypatch, h200(0), h200(1))
    probe = NvmlProbe({}, None)
    for _ in range(2):
        assert list(probe.inventory()) == []
    [line] = caplog.messages
    assert "GGML_CUDA=on" in line


def test_nothing_is_said_of_a_backend_where_there_are_no_gpus(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_nvml.install(monkeypatch)
    assert list(NvmlProbe({}, None).inventory()) == []
    assert caplog.messages == []


# Processes


@pytest.mark.parametrize(
    ("compute", "graphics", "held"),
    [
        ({7: 3 * GIB, 8: 4 * GIB, 9: 5 * GIB}, None, 7 * GIB),
        ({7: 3 * GIB}, {8: 4 * GIB, 50: GIB}, 7 * GIB),
        ({7: 3 * GIB, 8: 1 * GIB}, {7: 3 * GIB}, 4 * GIB),  # in both lists: counted once
        ({7: 3 * GIB}, pynvml.NVMLError_NotSupported(), 3 * GIB),
        ({7: 0}, None, 0),
    ],
)
def test_what_processes_hold_together(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe, compute: Any, graphics: Any, held: int
) -> None:
    gpu = h200(compute=compute, graphics=graphics)
    fake_nvml.install(monkeypatch, gpu, h200(1))
    assert probe.used_bytes([7, 8]) == {gpu.uuid: held}


@pytest.mark.parametrize(
    "gpu",
    [
        h200(compute={9: GIB}),  # other programs, or ours under the numbers of another namespace
        h200(compute={7: GIB, 8: None}),
        h200(compute=pynvml.NVMLError_NoPermission(), graphics=pynvml.NVMLError_NoPermission()),
        h200(compute=pynvml.NVMLLibraryMismatchError(), graphics=None),
    ],
    ids=["not seen", "partly unknown", "not permitted", "old driver"],
)
def test_a_gpu_where_they_are_not_seen_is_left_out(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe, gpu: FakeGpu
) -> None:
    fake_nvml.install(monkeypatch, gpu)
    assert probe.used_bytes([7, 8]) == {}


def test_windows_does_not_tell(monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe) -> None:
    fake_nvml.install(monkeypatch, geforce_on_windows())
    [device] = probe.inventory()
    assert device.total_bytes == 25_757_220_864
    assert probe.used_bytes([41, 42]) == {}


def test_instances_of_a_divided_gpu_are_asked_one_by_one(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe
) -> None:
    gpu = a100_in_parts()
    assert gpu.instances is not None
    first = gpu.instances[0]
    assert first is not None
    first.compute = {7: 2 * GIB}
    fake_nvml.install(monkeypatch, gpu)
    assert probe.used_bytes([7]) == {first.uuid: 2 * GIB}


def test_without_processes_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, probe: NvmlProbe
) -> None:
    fake = fake_nvml.install(monkeypatch, h200(compute={7: GIB}))
    assert probe.used_bytes([]) == {}
    assert fake.started == 0
