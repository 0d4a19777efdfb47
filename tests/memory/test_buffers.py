"""From a worker's names for devices to the router's."""

from __future__ import annotations

from llm_router_mw.memory.buffers import costs_by_device
from llm_router_mw.types import HOST, BufferMemory, Cost, Device, MeasuredMemory, Placement


def device(name: str, pci_id: str = "", backend_name: str = "") -> Device:
    return Device(
        id=name,
        pool=name,
        kind="cuda",
        name="GPU",
        total_bytes=1,
        free_bytes=1,
        pci_id=pci_id,
        backend_name=backend_name,
    )


def on(name: str, weights: int = 0, context: int = 0, compute: int = 0) -> BufferMemory:
    return BufferMemory(
        buffer_type="CUDA0",
        device=name,
        weights_bytes=weights,
        context_bytes=context,
        compute_bytes=compute,
    )


def test_buffers_of_one_device_are_added_up() -> None:
    memory = MeasuredMemory(buffers=(on(HOST, 1, 2), on(HOST, 4, 0, 8)))
    assert costs_by_device(memory, Placement(), ()) == {
        HOST: Cost(weights_bytes=5, context_bytes=2, compute_bytes=8)
    }


def test_each_device_of_the_placement_is_told_even_if_it_holds_nothing() -> None:
    memory = MeasuredMemory(buffers=(on(HOST, 1),), devices=(device("0000:01:00.0"),))
    placement = Placement(devices=("GPU-1",))
    assert costs_by_device(memory, placement, ()) == {"GPU-1": Cost(), HOST: Cost(weights_bytes=1)}


def test_a_worker_sees_the_devices_of_its_placement_in_their_order() -> None:
    # Parts of one card have one address, so only the order tells them apart.
    seen = (device("0000:01:00.0"), device("0000:01:00.0-v1", pci_id="0000:01:00.0"))
    memory = MeasuredMemory(buffers=(on(seen[1].id, 1), on(seen[0].id, 2), on(HOST)), devices=seen)
    costs = costs_by_device(memory, Placement(devices=("MIG-a", "MIG-b")), ())
    assert costs is not None
    assert (costs["MIG-a"].weights_bytes, costs["MIG-b"].weights_bytes) == (2, 1)


def test_devices_that_have_lasting_ids_may_be_seen_in_any_order() -> None:
    seen = (device("0000:01:00.0"), device("0000:02:00.0"))
    memory = MeasuredMemory(
        buffers=(on("0000:01:00.0", 1), on("0000:02:00.0", 2), on(HOST)), devices=seen
    )
    placement = Placement(devices=("0000:02:00.0", "0000:01:00.0"))
    costs = costs_by_device(memory, placement, seen)
    assert costs is not None
    assert [costs[name].weights_bytes for name in ("0000:01:00.0", "0000:02:00.0")] == [1, 2]


def test_among_more_devices_the_address_or_the_name_tells() -> None:
    seen = (
        device("0000:01:00.0", pci_id="0000:01:00.0"),
        device("Vulkan1", backend_name="Vulkan1"),
        device("MTL0"),
        device("0000:09:00.0", pci_id="0000:09:00.0"),
    )
    known = (
        device("GPU-1", pci_id="0000:01:00.0"),
        device("second", backend_name="Vulkan1"),
        device("MTL0"),
    )
    memory = MeasuredMemory(
        buffers=(on("0000:01:00.0", 1), on("Vulkan1", 2), on("MTL0", 3)), devices=seen
    )
    costs = costs_by_device(memory, Placement(devices=("GPU-1",)), known)
    assert costs is not None
    assert {name: cost.weights_bytes for name, cost in costs.items()} == {
        "GPU-1": 1,
        "second": 2,
        "MTL0": 3,
        HOST: 0,
    }


def test_what_is_on_a_device_that_nobody_knows_cannot_be_told() -> None:
    seen = (device("0000:09:00.0", pci_id="0000:09:00.0"),)
    memory = MeasuredMemory(buffers=(on("0000:09:00.0", 1),), devices=seen)
    assert costs_by_device(memory, Placement(), ()) is None
    # Nothing on it is no trouble.
    idle = MeasuredMemory(buffers=(on("0000:09:00.0"), on(HOST, 1)), devices=seen)
    assert costs_by_device(idle, Placement(), ()) == {HOST: Cost(weights_bytes=1)}
