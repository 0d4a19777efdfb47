"""What an instance was seen to hold is charged to the pools that the router knows."""

from __future__ import annotations

from llm_router_mw.router.appraiser import measured_by_pool
from llm_router_mw.types import HOST, BufferMemory, Device, MeasuredMemory, Placement, Price

GIB = 1024**3
GPU, ADDRESS = "GPU-1234", "0000:01:00.0"


def device(identity: str, *, pool: str = "", address: str = "", name: str = "") -> Device:
    return Device(
        id=identity,
        pool=pool or identity,
        kind="host" if identity == HOST else "cuda",
        name="a device",
        total_bytes=80 * GIB,
        free_bytes=80 * GIB,
        pci_id=address,
        backend_name=name,
    )


DEVICES = (device(HOST), device(GPU, address=ADDRESS, name="CUDA0"))


def memory(*buffers: BufferMemory, private: int = 0) -> MeasuredMemory:
    """A report of a worker, which knows the GPU by its address."""
    seen = (device(ADDRESS, address=ADDRESS, name="CUDA0"),)
    return MeasuredMemory(buffers=buffers, devices=seen, private_bytes=private)


def on_gpu(n_bytes: int) -> BufferMemory:
    return BufferMemory(buffer_type="CUDA0", device=ADDRESS, weights_bytes=n_bytes)


def price(n_bytes: int) -> Price:
    return Price(
        placement=Placement(devices=(GPU,), n_gpu_layers=-1), bytes_by_pool={GPU: n_bytes, HOST: 1}
    )


def test_a_gpu_is_the_same_under_the_worker_s_name_and_the_router_s() -> None:
    held = measured_by_pool(memory(on_gpu(9 * GIB)), price(8 * GIB), DEVICES)
    assert held == {GPU: 9 * GIB, HOST: 0}


def test_it_is_known_by_its_address_where_nobody_placed_the_model() -> None:
    assert measured_by_pool(memory(on_gpu(9 * GIB)), None, DEVICES) == {GPU: 9 * GIB, HOST: 0}


def test_a_gpu_is_charged_no_less_than_was_reserved() -> None:
    held = measured_by_pool(memory(on_gpu(9 * GIB)), price(10 * GIB), DEVICES)
    assert held is not None
    assert held[GPU] == 10 * GIB


def test_what_the_host_holds_beside_buffers_and_mapped_pages_counts() -> None:
    buffers = (
        BufferMemory(buffer_type="CPU_Mapped", device=HOST, weights_bytes=4 * GIB),
        BufferMemory(buffer_type="CPU", device=HOST, context_bytes=GIB),
    )
    held = measured_by_pool(memory(*buffers, private=3 * GIB), None, DEVICES)
    assert held == {HOST: 7 * GIB}


def test_devices_that_share_the_host_s_pool_are_charged_to_it() -> None:
    shared = (device(HOST), device(GPU, pool=HOST, address=ADDRESS))
    assert measured_by_pool(memory(on_gpu(9 * GIB)), None, shared) == {HOST: 9 * GIB}


def test_a_device_that_nobody_knows_leaves_it_at_the_price() -> None:
    assert measured_by_pool(memory(on_gpu(9 * GIB)), None, DEVICES[:1]) is None


def test_a_worker_that_cannot_tell_leaves_it_at_the_price() -> None:
    assert measured_by_pool(None, price(GIB), DEVICES) is None
    assert measured_by_pool(memory(), price(GIB), DEVICES) is None
