"""What an instance was seen to hold is charged to the pools that the router knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.faults import Faults
from llm_router_mw.router.appraiser import Appraiser, measured_by_pool
from llm_router_mw.types import (
    HOST,
    BufferMemory,
    Cost,
    Device,
    LoadOptions,
    MeasuredMemory,
    MemoryEstimate,
    Model,
    Placement,
    Price,
)

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


# Estimators


class Estimator:
    """Answers, or raises, as it was told."""

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self.answer = answer

    def estimate(self, model: Model, placement: Placement, devices: Sequence[Device]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def record(
        self,
        model: Model,
        placement: Placement,
        memory: MeasuredMemory,
        devices: Sequence[Device],
        used_bytes: Mapping[str, int],
    ) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer


class Anywhere:
    name = "anywhere"

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        return [Placement()]


MODEL = Model(id="a", path="/a.gguf", source="test", options=LoadOptions())
KNOWN = MemoryEstimate(
    expected={HOST: Cost(weights_bytes=5)}, upper={HOST: 7}, source="sound", confidence="high"
)


def appraiser(answer: Any) -> tuple[Appraiser, Faults]:
    """One that asks an estimator with *answer* first, and then one that knows."""
    faults = Faults()
    made = Appraiser(
        Anywhere(),
        [Estimator("mine", answer), Estimator("sound", KNOWN)],
        charge_mmap=True,
        is_required=True,
        faults=faults,
    )
    return made, faults


ODD: Any = {HOST: "much"}


@pytest.mark.parametrize(
    "answer",
    [TypeError("a bug"), "much", msgspec.structs.replace(KNOWN, upper=ODD)],
    ids=["raises", "no estimate", "no number"],
)
def test_an_estimator_that_fails_leaves_it_to_the_next(answer: Any) -> None:
    made, faults = appraiser(answer)
    [price] = made.prices(MODEL, DEVICES)
    assert price.bytes_by_pool == {HOST: 7}
    assert faults.counts == {"estimator 'mine'": 1}


@pytest.mark.parametrize("answer", [None, ModelFileError("it is broken")], ids=str)
def test_one_that_cannot_tell_has_not_failed(answer: Any) -> None:
    made, faults = appraiser(answer)
    assert len(made.prices(MODEL, DEVICES)) == 1
    assert faults.counts == {}


def test_one_that_cannot_learn_keeps_nobody_from_it() -> None:
    made, faults = appraiser(OSError("no disk"))
    made.learn(MODEL, Placement(), memory(), DEVICES, {})
    assert faults.counts == {"estimator 'mine'": 1}
