"""A model and a smaller one that drafts for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.memory.draft import WithDraft
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.overhead import PROCESS
from llm_router_mw.types import HOST, Device, LoadOptions, MemoryEstimate, Model, Placement
from tests.support.model_headers import dense_tensors, write_sparse

GPU = Device(id="a", pool="a", kind="cuda", name="a", total_bytes=2**35, free_bytes=2**35)
ON_GPU = Placement(devices=("a",), n_gpu_layers=-1)
PARTS = ("weights_bytes", "context_bytes", "compute_bytes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_sparse(tmp_path / "model.gguf")


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    metadata = {"block_count": 2, "context_length": 2048}
    return write_sparse(
        tmp_path / "draft.gguf", metadata=metadata, tensors=dense_tensors(n_layer=2)
    )


def alone(path: Path, placement: Placement, **options: Any) -> MemoryEstimate:
    model = Model(id="m", path=str(path), source="test", options=LoadOptions(**options))
    return MetadataEstimator().estimate(model, placement, [GPU])


def together(path: Path, draft: Path, placement: Placement, **options: Any) -> MemoryEstimate:
    model = Model(id="m", path=str(path), source="test", options=LoadOptions(**options))
    return WithDraft(str(draft)).estimate(model, placement, [GPU])


@pytest.mark.parametrize("placement", [Placement(), ON_GPU])
def test_buffers_of_both_are_added_up(path: Path, draft: Path, placement: Placement) -> None:
    both = together(path, draft, placement, n_ctx=8192)
    one, two = (alone(each, placement, n_ctx=8192) for each in (path, draft))
    for device, cost in both.expected.items():
        for part in PARTS:
            parts = (getattr(each.expected[device], part) for each in (one, two))
            assert getattr(cost, part) == sum(parts)
    assert both.soft_bytes == one.soft_bytes + two.soft_bytes


def test_what_a_process_has_once_is_counted_once(path: Path, draft: Path) -> None:
    both, one, two = together(path, draft, ON_GPU), alone(path, ON_GPU), alone(draft, ON_GPU)
    assert both.expected["a"].overhead_bytes == one.expected["a"].overhead_bytes
    on_host = [each.expected[HOST].overhead_bytes for each in (one, two)]
    # Its own vocabulary and cells, but for the longer context here.
    assert both.expected[HOST].overhead_bytes >= sum(on_host) - PROCESS.expected
    assert all(both.upper[each] > one.upper[each] for each in ("a", HOST))
    assert both.upper["a"] < one.upper["a"] + two.upper["a"]


def test_the_context_is_that_of_the_model(path: Path, draft: Path) -> None:
    short, long = (together(path, draft, ON_GPU, n_ctx=n_ctx) for n_ctx in (4096, 16_384))
    grown = long.expected["a"].context_bytes - short.expected["a"].context_bytes
    # Keys and values of six layers in all, 256 wide, in half precision.
    assert grown == (16_384 - 4096) * 6 * 2 * 256 * 2


def test_its_layers_go_to_the_gpu_though_those_of_the_model_do_not(path: Path, draft: Path) -> None:
    some = Placement(devices=("a",), n_gpu_layers=2)
    both, one, two = together(path, draft, some), alone(path, some), alone(draft, ON_GPU)
    weights = [each.expected["a"].weights_bytes for each in (one, two)]
    assert both.expected["a"].weights_bytes == sum(weights)


def test_one_that_is_not_known_makes_it_a_rough_estimate(path: Path, tmp_path: Path) -> None:
    new = write_sparse(tmp_path / "new.gguf", "brand-new")
    both = together(path, new, ON_GPU)
    assert both.confidence == "low"
    assert any(note.startswith("draft model: the architecture 'brand-new'") for note in both.notes)


def test_a_missing_file_is_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.gguf"):
        together(path, tmp_path / "none.gguf", ON_GPU)
