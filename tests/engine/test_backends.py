"""The devices that ggml sees, and who owns which kind of buffer."""

from __future__ import annotations

import pytest

from llm_router_mw.engine.backends import (
    buffer_owner,
    buffer_types,
    device_pointers,
    devices,
)
from llm_router_mw.types import HOST, Device
from tests.engine.fake_ggml import ACCELERATOR, CPU, IGPU, FakeBuffer, FakeDevice, install

ALL = [
    FakeDevice("CUDA0", address="0000:C1:00.0", buffer="CUDA0"),
    FakeDevice("MTL0", registry="MTL", type=IGPU, buffer="MTL0"),
    FakeDevice("CUDA1", address="0000:c2:00.0-v1"),
    FakeDevice("Odd0", registry="Novel"),
    FakeDevice("BLAS", type=ACCELERATOR),
    FakeDevice("CPU", type=CPU, registry="CPU", buffer="CPU"),
]


def test_there_is_a_processor_without_any_faking() -> None:
    assert "CPU" in buffer_types()
    assert all(device.id != HOST for device in devices())


def test_gpus_are_told_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ALL)
    cuda, metal, part, odd = devices()
    assert cuda == Device(
        id="0000:c1:00.0",
        pool="0000:c1:00.0",
        kind="cuda",
        name="CUDA0, described",
        total_bytes=1000,
        free_bytes=600,
        pci_id="0000:c1:00.0",
        backend_name="CUDA0",
    )
    assert (metal.id, metal.kind, metal.pool) == ("MTL0", "metal", HOST)
    assert (part.id, part.pci_id) == ("0000:c2:00.0-v1", "0000:c2:00.0")
    assert (odd.id, odd.kind) == ("Odd0", "other")


def test_the_first_backend_has_a_card_that_two_see(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [
        FakeDevice("CUDA0", address="0000:01:00.0"),
        FakeDevice("Vulkan0", address="0000:01:00.0", registry="Vulkan"),
        FakeDevice("Vulkan1", address="0000:02:00.0", registry="Vulkan"),
    ]
    install(monkeypatch, twice)
    assert device_pointers() == {"0000:01:00.0": 1, "0000:02:00.0": 3}


def test_buffer_types_are_those_of_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ALL)
    assert buffer_types() == {"CUDA0": 101, "MTL0": 102, "CPU": 106}


@pytest.mark.parametrize(
    ("used", "names"),
    [
        ((), {"CPU"}),
        (("MTL0",), {"MTL0", "CPU"}),
        (("0000:c1:00.0", "MTL0"), {"CUDA0", "MTL0", "CPU"}),
        (("GPU-1",), {"CUDA0", "MTL0", "CPU"}),
    ],
)
def test_buffer_types_of_gpus_that_are_not_used_are_left_out(
    monkeypatch: pytest.MonkeyPatch, used: tuple[str, ...], names: set[str]
) -> None:
    install(monkeypatch, ALL)
    assert set(buffer_types(used)) == names


def test_a_device_in_the_network_is_known_by_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = "RPC0[10.0.0.7:50052]"
    install(monkeypatch, [FakeDevice("RPC3", registry="RPC", buffer=server)])
    [device] = devices()
    assert (device.id, device.kind, device.backend_name) == (server, "rpc", "RPC3")
    assert device_pointers() == {server: 1}


@pytest.mark.parametrize(
    ("buffer", "owner"),
    [
        (FakeBuffer("CUDA0", device="CUDA0"), "0000:c1:00.0"),
        (FakeBuffer("CUDA_Host", device="CUDA0", is_host=True), HOST),
        (FakeBuffer("CPU_REPACK", device="CPU"), HOST),
        (FakeBuffer("AMX", device="BLAS"), HOST),
        (FakeBuffer("CPU", is_host=True), HOST),
        (FakeBuffer("Meta"), HOST),
    ],
)
def test_a_buffer_is_charged_to_the_memory_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, buffer: FakeBuffer, owner: str
) -> None:
    install(monkeypatch, ALL, {7: buffer})
    assert buffer_owner(7) == (buffer.name, owner)
