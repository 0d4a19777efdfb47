"""Scratch memory, against what dry runs of llama.cpp said about models of real sizes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from llm_router_mw.memory.compute import compute_needs
from llm_router_mw.memory.feed_forward import FeedForward, Gate
from llm_router_mw.memory.hyperparameters import Hyperparameters, read_hyperparameters
from llm_router_mw.memory.kv_cache import kv_cache_bytes
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.metadata import SCRATCH_RESERVE, SCRATCH_RESERVE_BYTES
from llm_router_mw.memory.phases import Need
from llm_router_mw.memory.recurrent import recurrent_bytes
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import LoadOptions, Placement
from tests.support.model_headers import header

MODELS: list[dict[str, Any]] = msgspec.json.decode(
    (Path(__file__).parent / "dry_runs.json").read_bytes()
)
"""Recorded with no_alloc on the processor: context and scratch in bytes, in all buffers.

``networks`` are the feed-forward networks: so many layers of such a size, gate, size of an expert,
and size of what is shared.
"""
NAMES = [model["model"] for model in MODELS]


class Run(NamedTuple):
    """One dry run, and what is said of it here."""

    options: LoadOptions
    context: int
    real: int
    need: Need

    @property
    def error(self) -> float:
        return self.need.expected / self.real - 1

    @property
    def most(self) -> int:
        return int(self.need.most * SCRATCH_RESERVE) + SCRATCH_RESERVE_BYTES


def shape_of(model: dict[str, Any]) -> Hyperparameters:
    metadata = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in model["metadata"].items()
    }
    shape = read_hyperparameters(header(model["architecture"], metadata, base={}))
    networks = tuple(
        FeedForward(n_ff=n_ff, gate=Gate(gate), n_ff_exp=expert, n_ff_shared=shared)
        for count, n_ff, gate, expert, shared in model["networks"]
        for _ in range(count)
    )
    return msgspec.structs.replace(shape, feed_forward=networks or shape.feed_forward)


def runs(name: str) -> Iterator[Run]:
    model = MODELS[NAMES.index(name)]
    shape = shape_of(model)
    layers = place_layers(Placement(), (), shape.n_layer_all)
    for recorded in model["runs"]:
        options = msgspec.convert(recorded["options"], LoadOptions)
        context = resolve_context(shape, options)
        (need,) = compute_needs(shape, context, layers, (), options, 0).values()
        cache = kv_cache_bytes(shape, context, layers).values()
        state = recurrent_bytes(shape, context, layers).values()
        assert sum(cache) + sum(state) == recorded["context"], (name, options)
        yield Run(options, recorded["context"], recorded["compute"], need)


@pytest.mark.parametrize("name", NAMES)
def test_cache_and_state_are_exact_and_scratch_is_close(name: str) -> None:
    errors = [abs(run.error) for run in runs(name)]
    assert len(errors) >= 10
    assert statistics.median(errors) <= 0.05


@pytest.mark.parametrize("name", NAMES)
def test_no_graph_takes_more_than_the_most(name: str) -> None:
    for run in runs(name):
        assert run.real <= run.most, run


@pytest.mark.parametrize("name", NAMES)
def test_the_most_is_not_much_more(name: str) -> None:
    spare = [run.most - 1.10 * run.real for run in runs(name)]
    assert statistics.median(spare) <= 64 * 1024**2


def test_over_all_models_the_error_is_small() -> None:
    errors = [abs(run.error) for name in NAMES for run in runs(name)]
    assert len(errors) > 250
    assert statistics.median(errors) < 0.02
