"""The probes' answers become one list of devices, and one reading of each pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from llm_router_mw.faults import Faults
from llm_router_mw.memory.inventory import Inventory
from llm_router_mw.types import HOST, Device, InstanceKey, LoadOptions, PoolReading
from tests.support.kernel_files import GIB, MIB

KEY, OTHER = InstanceKey("a.gguf", LoadOptions()), InstanceKey("b.gguf", LoadOptions())


class Probe:
    """Says what it was told to say; what processes hold, one answer after the other."""

    def __init__(
        self, *devices: Device, used: Sequence[Mapping[str, int]] = (), name: str = "fake"
    ) -> None:
        self.name = name
        self._devices = devices
        self._used = list(used)

    def inventory(self) -> Sequence[Device]:
        return self._devices

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        return self._used.pop(0) if self._used else {}


class Broken:
    """A probe of somebody's that raises."""

    name = "broken"

    def inventory(self) -> Sequence[Device]:
        raise RuntimeError("no devices today")

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        raise RuntimeError("no processes today")


def host(total: int = 64 * GIB, free: int = 50 * GIB) -> Device:
    return Device(
        id=HOST, pool=HOST, kind="host", name="host memory", total_bytes=total, free_bytes=free
    )


def gpu(name: str, pci_id: str = "", pool: str = "", total: int = 24 * GIB, **more: str) -> Device:
    return Device(
        id=name,
        pool=pool or name,
        kind="cuda",
        name="GPU",
        total_bytes=total,
        free_bytes=total // 2,
        pci_id=pci_id,
        backend_name=more.get("backend_name", ""),
    )


def ids(*probes: Probe) -> list[str]:
    return [device.id for device in Inventory(probes).devices()]


# One list


def test_all_devices_of_all_probes_in_their_order() -> None:
    assert ids(Probe(host()), Probe(gpu("b"), gpu("a")), Probe(gpu("c"))) == [HOST, "b", "a", "c"]


def test_one_card_that_two_probes_see_is_one_device() -> None:
    nvml = Probe(gpu("GPU-1", "0000:01:00.0"), gpu("GPU-2", "0000:02:00.0"))
    ggml = Probe(gpu("0000:02:00.0", "0000:02:00.0", backend_name="Vulkan1"), gpu("MTL0"))
    first, second, third = Inventory([nvml, ggml]).devices()
    assert [first.id, second.id, third.id] == ["GPU-1", "GPU-2", "MTL0"]
    assert (first.backend_name, second.backend_name) == ("", "Vulkan1")


def test_a_name_that_is_known_is_kept() -> None:
    nvml = Probe(gpu("GPU-1", "0000:01:00.0", backend_name="CUDA0"))
    ggml = Probe(gpu("0000:01:00.0", "0000:01:00.0", backend_name="Vulkan0"))
    [device] = Inventory([nvml, ggml]).devices()
    assert device.backend_name == "CUDA0"


def test_the_parts_of_a_divided_card_stay_apart_and_none_takes_the_name_of_the_whole() -> None:
    nvml = Probe(gpu("MIG-1", "0000:01:00.0"), gpu("MIG-2", "0000:01:00.0"))
    ggml = Probe(gpu("0000:01:00.0", "0000:01:00.0", backend_name="CUDA0"))
    found = Inventory([nvml, ggml]).devices()
    assert [(device.id, device.backend_name) for device in found] == [("MIG-1", ""), ("MIG-2", "")]


def test_one_card_that_two_backends_see_is_the_firsts() -> None:
    cuda = gpu("0000:01:00.0", "0000:01:00.0", backend_name="CUDA0")
    vulkan = msgspec.structs.replace(cuda, backend_name="Vulkan0", kind="vulkan")
    assert list(Inventory([Probe(cuda, vulkan)]).devices()) == [cuda]


def test_the_first_probe_has_the_say() -> None:
    [device] = Inventory([Probe(host(free=7)), Probe(host(free=9))]).devices()
    assert device.free_bytes == 7


def test_a_probe_that_raises_is_left_out_counted_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = Faults()
    inventory = Inventory([Broken(), Probe(host())], faults=faults)
    for _ in range(2):
        assert [device.id for device in inventory.look({KEY: 1}).devices] == [HOST]
    assert faults.counts == {"device probe 'broken'": 6}
    [message] = caplog.messages
    assert "'broken' failed: no processes today" in message


def test_a_probe_that_says_something_else_is_left_out() -> None:
    class Odd(Probe):
        def inventory(self) -> Any:
            return ["a GPU"]

        def used_bytes(self, pids: Sequence[int]) -> Any:
            return {HOST: "much"}

    faults = Faults()
    look = Inventory([Odd(), Probe(host())], faults=faults).look({KEY: 1})
    assert [device.id for device in look.devices] == [HOST]
    assert look.held == {KEY: {}}
    assert faults.counts == {"device probe 'fake'": 3}


# Memory that is shared with the host


def test_a_gpu_without_memory_of_its_own_shows_the_hosts() -> None:
    _, device = Inventory([Probe(host()), Probe(gpu("GB10", pool=HOST, total=0))]).devices()
    assert (device.pool, device.total_bytes, device.free_bytes) == (HOST, 64 * GIB, 50 * GIB)


def test_it_may_have_less_than_the_host_but_not_more_free() -> None:
    integrated = gpu("Vulkan0", pool=HOST, total=120 * GIB)
    _, device = Inventory([Probe(host()), Probe(integrated)]).devices()
    assert (device.total_bytes, device.free_bytes) == (120 * GIB, 50 * GIB)


def test_where_the_hosts_memory_is_unknown_its_own_is_a_pool() -> None:
    found = Inventory([Probe(host(0, 0)), Probe(gpu("MTL0", pool=HOST))]).devices()
    assert [device.pool for device in found] == [HOST, "MTL0"]


def test_where_nothing_is_known_nothing_is_made_up() -> None:
    found = Inventory([Probe(host(0, 0)), Probe(gpu("GB10", pool=HOST, total=0))]).devices()
    assert [(device.pool, device.total_bytes) for device in found] == [(HOST, 0), (HOST, 0)]


# Readings


def test_a_pool_is_read_with_what_is_ours_and_the_margin() -> None:
    look = Inventory(
        [Probe(host(), used=[{HOST: 3 * GIB}] * 2), Probe(gpu("GPU-1"))],
        margin={"default": 512, "GPU-1": 0},
        limit={"GPU-1": 2048},
    ).look({KEY: 7})
    assert look.readings == {
        HOST: PoolReading(
            total_bytes=64 * GIB,
            free_bytes=50 * GIB,
            ours_bytes=3 * GIB,
            margin_bytes=512 * MIB,
        ),
        "GPU-1": PoolReading(
            total_bytes=24 * GIB,
            free_bytes=12 * GIB,
            margin_bytes=0,
            limit_bytes=2 * GIB,
        ),
    }


def test_without_a_word_the_margin_is_a_gibibyte() -> None:
    inventory = Inventory([Probe(host())], margin={"GPU-1": 5})
    assert inventory.look().readings[HOST].margin_bytes == GIB


def test_what_no_probe_sees_is_taken_from_what_we_know() -> None:
    probes = [Probe(host(), used=[{HOST: 1}, {HOST: 2}]), Probe(gpu("a"), gpu("b"))]
    look = Inventory(probes).look({KEY: 7}, {"a": 5 * GIB, HOST: 9 * GIB})
    assert {pool: reading.ours_bytes for pool, reading in look.readings.items()} == {
        HOST: 2,
        "a": 5 * GIB,
        "b": 0,
    }


def test_on_unified_memory_both_kinds_of_ours_count() -> None:
    nvml = Probe(gpu("GB10", pool=HOST, total=0), used=[{"GB10": 40 * GIB}] * 2)
    look = Inventory([Probe(host(), used=[{HOST: 2 * GIB}] * 2), nvml]).look({KEY: 7})
    assert list(look.readings) == [HOST]
    assert look.readings[HOST].ours_bytes == 42 * GIB


@pytest.mark.parametrize("used", [[{HOST: 40 * GIB}, {HOST: 0}], [{}, {HOST: 40 * GIB}]])
def test_a_process_that_ends_or_loads_meanwhile_is_not_taken_for_others(
    used: list[Mapping[str, int]],
) -> None:
    look = Inventory([Probe(host(free=24 * GIB), used=used)]).look({KEY: 7})
    assert look.readings[HOST].others_bytes == 0


def test_each_process_is_seen_by_itself_too() -> None:
    # First both together, then one after the other.
    used = [{HOST: 5 * GIB}, {HOST: 2 * GIB}, {HOST: 3 * GIB}]
    look = Inventory([Probe(host(), used=used)]).look({KEY: 7, OTHER: 8})
    assert look.held == {KEY: {HOST: 2 * GIB}, OTHER: {HOST: 3 * GIB}}
    assert look.readings[HOST].ours_bytes == 5 * GIB


def test_what_we_hold_besides_instances_is_ours() -> None:
    look = Inventory([Probe(host())]).look(besides={HOST: 4 * GIB})
    assert look.readings[HOST].ours_bytes == 4 * GIB


def test_a_pool_without_an_owner_is_read_from_a_member() -> None:
    [reading] = Inventory([Probe(gpu("a", pool="card"), gpu("b", pool="card"))]).look().readings
    assert reading == "card"


def test_a_name_that_no_device_has_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    inventory = Inventory([Probe(host())], margin={"GPU-7": 5}, limit={"GPU-8": 5})
    for _ in range(2):
        inventory.look()
    margin, limit = caplog.messages
    assert "margin" in margin
    assert "'GPU-7'" in margin
    assert "limit" in limit
    assert "'GPU-8'" in limit
