"""Estimates for several devices beside what llama.cpp really puts on them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from msgspec import Struct

from llm_router_mw import wire
from llm_router_mw.memory.buffers import costs_by_device
from llm_router_mw.memory.dry_run_order import DryRunOrder
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.overhead import host_overhead
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import HOST, Cost, Device, LoadOptions, Model, Placement
from tests.support.dry_runs import DryRuns
from tests.support.estimate_matrix import drawn_options
from tests.support.sparse_models import SPARSE_MODELS, write_sparse_model
from tests.support.tiny_models import write_tiny_llama
from tests.worker.process import CHAT_FORMATS, WorkerProcess

MIB = 1024**2
DRAWN = 8
"""Loads of each model that are drawn."""
MOST_IN_ALL, MOST_ON_ONE = 1.25, 1.3
"""Parts of what all devices, or one of them, really hold, besides 64 MiB on each."""
MOST_PADDING = 96
"""Bytes of a tensor that are lost where a GPU aligns it to 128, and the processor to 32."""

pytestmark = pytest.mark.timeout(600)


class Side(Struct, frozen=True, kw_only=True):
    """One device of one load: what it holds, and what was estimated; overheads left out."""

    real: Cost
    ours: Cost
    upper: int

    @property
    def compute_error(self) -> float:
        return self.ours.compute_bytes / self.real.compute_bytes - 1


class Truth:
    """Writes models, and compares one load of them after the other."""

    def __init__(self, folder: Path, dry_runs: DryRuns, devices: Sequence[Device]) -> None:
        self.folder = folder
        self.devices = devices
        self.ids = [device.id for device in devices]
        self._dry_runs = dry_runs
        self._estimator = MetadataEstimator()

    def model(self, name: str, **options: Any) -> Model:
        path = self.folder / f"{name}.gguf"
        if not path.exists():
            write_sparse_model(path, name)
        load = LoadOptions(use_mmap=False, **options)
        return Model(id=name, path=str(path), source="test", options=load)

    def n_layer(self, name: str) -> int:
        return self._estimator.files.read(self.model(name)).shape.n_layer_all

    def n_tensors(self, name: str) -> int:
        [header] = self._estimator.files.read(self.model(name)).headers
        return len(header.tensors)

    def compare(self, model: Model, placement: Placement) -> dict[str, Side]:
        """Return each device that *placement* uses; none if llama.cpp does not load that."""
        order = DryRunOrder(path=model.path, options=model.options, placement=placement)
        answer = self._dry_runs.ask(order)
        if answer is None or answer.memory is None:
            return {}
        assert not answer.memory.note
        real = costs_by_device(answer.memory, placement, self.devices)
        assert real is not None
        found = self._estimator.estimate(model, placement, self.devices)
        shape = self._estimator.files.read(model).shape
        layers = place_layers(placement, self.devices, shape.n_layer_all)
        on_host = host_overhead(shape, resolve_context(shape, model.options), layers).most
        on_gpu = self._estimator.overhead.on("", "rpc").most
        return {
            device: Side(
                real=real[device],
                ours=ours,
                upper=found.upper[device] - (on_host if device == HOST else on_gpu),
            )
            for device, ours in found.expected.items()
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def truth(folder: Path, dry_runs: DryRuns, devices: tuple[Device, ...]) -> Truth:
    return Truth(folder, dry_runs, devices)


def placement(ids: Sequence[str], *shares: float, **more: Any) -> Placement:
    """Return a placement of all layers, unless *more* says otherwise, on the first of *ids*."""
    given: dict[str, Any] = {"n_gpu_layers": -1, "split_mode": "layer" if shares else "none"}
    return Placement(
        devices=tuple(ids[: max(1, len(shares))]), tensor_split=shares, **(given | more)
    )


def test_each_server_is_a_device_with_a_lasting_name(
    servers: list[str], devices: tuple[Device, ...]
) -> None:
    assert [device.id for device in devices] == [f"RPC0[{each}]" for each in servers]
    assert {device.kind for device in devices} == {"rpc"}
    assert all(device.total_bytes > 0 for device in devices)


CASES: dict[str, tuple[tuple[float, ...], dict[str, Any], dict[str, Any]]] = {
    "all on one": ((), {}, {}),
    "the output alone": ((), {"n_gpu_layers": 1}, {}),
    "some layers": ((), {"n_gpu_layers": 7}, {}),
    "none": ((), {"n_gpu_layers": 0}, {}),
    "two halves": ((0.5, 0.5), {}, {}),
    "two unequal parts": ((0.7, 0.3), {}, {}),
    "a part on two": ((0.2, 0.8), {"n_gpu_layers": 9}, {}),
    "three": ((1, 1, 1), {}, {}),
    "one of two": ((1, 1), {"split_mode": "none", "main_gpu": 1}, {}),
    "the cache stays": ((0.5, 0.5), {}, {"offload_kqv": False}),
    "a small cache": ((0.5, 0.5), {}, {"type_k": "q8_0", "type_v": "q4_0"}),
    "experts on the host": ((0.5, 0.5), {}, {"cpu_moe": True}),
    "some experts on the host": ((0.5, 0.5), {}, {"n_cpu_moe": 3}),
    "tensors on the host": ((0.5, 0.5), {}, {"override_tensor": (r"blk\.[0-3]\.ffn_.*=CPU",)}),
    "tensors elsewhere": ((0.5, 0.5), {}, {"override_tensor": (r"blk\.[0-3]\.ffn_.*={0}",)}),
    "the embedding elsewhere": ((0.5, 0.5), {}, {"override_tensor": ("token_embd={1}",)}),
}


@pytest.mark.parametrize("name", ["llama-1b", "qwen3-30b-a3b", "gemma3-4b", "granite-1b"])
@pytest.mark.parametrize("case", CASES)
def test_weights_and_context_are_exact_on_each_device(truth: Truth, name: str, case: str) -> None:
    shares, where, options = CASES[case]
    ids = truth.ids
    overrides = tuple(each.format(ids[1], ids[0]) for each in options.get("override_tensor", ()))
    if overrides:
        options = {**options, "override_tensor": overrides}
    model = truth.model(name, n_ctx=4096, **options)
    sides = truth.compare(model, placement(ids, *shares, **where))
    assert sides
    for device, side in sides.items():
        spare = 0 if device == HOST else MOST_PADDING * truth.n_tensors(name)
        assert 0 <= side.ours.weights_bytes - side.real.weights_bytes <= spare, device
        assert side.ours.context_bytes == side.real.context_bytes, device
        assert side.upper >= side.real.total_bytes, device


def drawn(truth: Truth, name: str) -> Iterator[dict[str, Side]]:
    """Compare loads with options and places that are always the same."""
    chance, n_layer = random.Random(name), truth.n_layer(name)
    for options in drawn_options(name, 11, DRAWN):
        ids = chance.sample(truth.ids, chance.choice([1, 1, 2, 2, 3]))
        shares = [chance.choice([0.2, 0.5, 0.8, 1.0]) for _ in ids] if len(ids) > 1 else []
        some = chance.choice([-1, -1, 1, n_layer // 2, n_layer, max(1, n_layer // 3)])
        where = placement(ids, *shares, n_gpu_layers=some)
        yield truth.compare(truth.model(name, **options), where)


def _real(side: Side) -> int:
    return side.real.total_bytes


def _most(side: Side) -> int:
    return side.upper


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    """Errors of scratch memory, by model; what the last test looks at."""
    return {}


@pytest.mark.parametrize("name", SPARSE_MODELS)
def test_no_device_holds_more_than_the_most(
    truth: Truth, name: str, errors: dict[str, list[float]]
) -> None:
    loads = [list(load.values()) for load in drawn(truth, name)]
    sides = [side for load in loads for side in load]
    assert len(sides) > DRAWN
    for load in loads:
        real, most = (sum(size(each) for each in load) for size in (_real, _most))
        assert most <= MOST_IN_ALL * real + 64 * MIB * len(load)
    for side in sides:
        assert side.real.total_bytes <= side.upper <= MOST_ON_ONE * side.real.total_bytes + 64 * MIB
    errors[name] = [abs(each.compute_error) for each in sides if each.real.compute_bytes > MIB]


def test_the_expected_is_close(errors: dict[str, list[float]]) -> None:
    every = [error for found in errors.values() for error in found]
    if len(errors) == len(SPARSE_MODELS):
        assert median(every) < 0.05


def test_tensors_cannot_go_to_a_device_that_is_not_used(truth: Truth) -> None:
    options = LoadOptions(override_tensor=(f"ffn_up={truth.ids[1]}",), use_mmap=False)
    order = DryRunOrder(
        path=truth.model("llama-1b").path, options=options, placement=placement(truth.ids)
    )
    answer = truth._dry_runs.ask(order)
    assert answer is not None, "llama.cpp ended the process"
    assert answer.failure is not None
    assert "which does not exist here" in answer.failure.message


def test_a_real_load_holds_what_a_dry_run_says(
    devices: tuple[Device, ...], dry_runs: DryRuns, tmp_path: Path
) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    where = placement([device.id for device in devices], 0.5, 0.5)
    options = LoadOptions(n_ctx=512, n_threads=1, use_mmap=False)
    dry = dry_runs.ask(DryRunOrder(path=str(path), options=options, placement=where))
    dry_runs.close()
    assert dry is not None
    assert dry.memory is not None
    worker = WorkerProcess(tmp_path / "log")
    try:
        worker.hello()
        worker.send(wire.Load(str(path), options, CHAT_FORMATS, placement=where))
        while isinstance(message := worker.receive(), wire.Progress):
            pass
        assert isinstance(message, wire.Loaded), message
        assert message.info.memory is not None
        real = costs_by_device(message.info.memory, where, devices)
        assert real == costs_by_device(dry.memory, where, devices)
    finally:
        worker.close()
