"""A model and a projector of images beside it, against what llama.cpp itself allocates."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf import read_header
from llm_router_mw.memory.encoders import Encoder, read_encoders
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.projector import WithProjector, read_projector
from llm_router_mw.memory.projector_scratch import scratch_need
from llm_router_mw.types import HOST, Device, MemoryEstimate, Model, Placement
from tests.support.model_headers import write_sparse
from tests.support.projector_probe import KNOWN_VERSION, ask
from tests.support.sparse_projectors import (
    SOUND,
    TOWERS,
    Tower,
    layers,
    write_projector,
    write_tensors,
)

MIB = 2**20
GPU = Device(id="a", pool="a", kind="cuda", name="a", total_bytes=2**35, free_bytes=2**35)
ON_GPU = Placement(devices=("a",), n_gpu_layers=-1)
SLACK_BYTES = 64 * MIB
with_llama = pytest.mark.skipif(
    sys.platform != "linux" or version("llama-cpp-python") != KNOWN_VERSION,
    reason="reads GNU's C++ library and structures of one version of llama.cpp",
)
FIXED_SIDES = ("mobilevlm", "mobilevlm-2")
"""Their graphs are for images of 24 patches by 24 only."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_sparse(tmp_path / "model.gguf")


def model(path: Path) -> Model:
    return Model(id="m", path=str(path), source="test")


def encoders(path: Path) -> tuple[Encoder, ...]:
    return read_encoders(read_header(path), str(path))


def drawn(name: str, seed: int, count: int) -> list[Tower]:
    """Return towers like the one called *name*, of sizes drawn by a seed."""
    chance, tower = random.Random(f"{name}{seed}"), TOWERS[name]
    found = []
    for _ in range(count):
        n_head = chance.choice([4, 8, 12, 16, 20])
        n_embd = n_head * chance.choice([32, 64, 80, 96])
        side = 24 if name in FIXED_SIDES else chance.choice([8, 16, 24, 32, 48])
        found.append(
            tower.sized(
                n_embd=n_embd,
                n_head=n_head,
                n_ff=chance.choice([n_embd, 2 * n_embd, 3 * n_embd + 48, 4 * n_embd]),
                n_layer=chance.choice([2, 4, 6]),
                projection_dim=chance.choice([512, 1024, 2560, 4096, 8192]),
                image_size=side * tower.patch_size,
            )
        )
    return found


def first_image(encoder: Encoder) -> Encoder:
    """Return *encoder* as if no image were larger than the one that is tried at the start."""
    return msgspec.structs.replace(encoder, n_rows_max=encoder.n_rows, n_images=1)


def check_scratch(
    folder: Path, towers: list[Tower], most: float, flashes: tuple[bool, ...] = (True, False)
) -> None:
    """Hold what is reserved against what llama.cpp allocates for the same image."""
    paths = [write_projector(folder / f"{n}.gguf", tower) for n, tower in enumerate(towers)]
    questions = [(path, flash) for path in paths for flash in flashes]
    for (path, flash), (_, real) in zip(questions, ask(questions), strict=True):
        found = [first_image(encoder) for encoder in encoders(path)]
        needs = [scratch_need(each, has_flash_attention=flash) for each in found]
        reserved = sum(need.most for need in needs)
        assert 0 < real <= reserved
        # Much more is kept where a graph is not known.
        is_known = all(each.kind.is_known for each in found)
        assert reserved <= most * real + SLACK_BYTES or not is_known


@with_llama
def test_weights_are_exact(tmp_path: Path) -> None:
    paths = [write_projector(tmp_path / name, tower) for name, tower in TOWERS.items()]
    real = [weights for weights, _ in ask([(path, True) for path in paths])]
    assert [read_projector(str(path)).weights_bytes for path in paths] == real


@with_llama
def test_an_encoder_of_sound_may_be_alone(tmp_path: Path) -> None:
    path = write_projector(tmp_path / "sound.gguf", SOUND)
    ((weights, real),) = ask([(path, True)])
    found = read_projector(str(path))
    assert (found.name, found.weights_bytes) == ("qwen2a", weights)
    assert found.upper_bytes - weights > real


@with_llama
@pytest.mark.parametrize("name", TOWERS)
def test_scratch_memory_is_never_too_little(tmp_path: Path, name: str) -> None:
    check_scratch(tmp_path, [TOWERS[name]], 1.6)


@with_llama
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TOWERS) - {"qwen2.5-omni"}))
def test_scratch_memory_of_any_size_is_never_too_little(tmp_path: Path, name: str) -> None:
    check_scratch(tmp_path, drawn(name, 3, 20), 1.8)


@with_llama
@pytest.mark.parametrize(
    ("name", "key", "n_rows"),
    [
        ("qwen2-vl", "vision.spatial_merge_size", 33_856),
        ("qwen2.5-vl", "vision.spatial_merge_size", 33_856),
        ("pixtral", "vision.spatial_merge_size", 4096),
        ("lfm2-vl", "vision.projector.scale_factor", 4096),
    ],
)
def test_the_largest_images_are_not_too_little_either(
    tmp_path: Path, name: str, key: str, n_rows: int
) -> None:
    # The image that is tried at the start is counted in tokens: more patches to one make it larger.
    tower = TOWERS[name]
    more = {"mm.patch_merger.weight": ("f16", (tower.n_embd * 16, tower.n_embd))}
    larger = replace(
        tower,
        metadata={**tower.metadata, key: 4},
        more=more if name == "pixtral" else {},
    )
    (encoder,) = encoders(write_projector(tmp_path / "0.gguf", larger))
    assert encoder.n_rows == n_rows
    # Without flash attention there would be more to allocate than most machines have.
    check_scratch(tmp_path, [larger], 1.7, (True,))


@with_llama
def test_what_is_expected_is_near(tmp_path: Path) -> None:
    paths = [write_projector(tmp_path / name, tower) for name, tower in TOWERS.items()]
    errors = []
    for path, (_, real) in zip(paths, ask([(path, True) for path in paths]), strict=True):
        if read_projector(str(path)).confidence == "high":
            errors.append(abs(read_projector(str(path)).compute_bytes / real - 1))
    assert len(errors) == len(TOWERS) - 1
    assert sorted(errors)[len(errors) // 2] < 0.1


@pytest.mark.parametrize(
    ("name", "largest", "first"),
    [
        ("llava-1.5", 24 * 24, 24 * 24),
        ("pixtral", 1024 * 4, 256 * 4),
        ("qwen2.5-vl", 4096 * 4, 46 * 46 * 4),
        ("internvl-3", 4 * 32 * 32, 32 * 32),
    ],
)
def test_more_is_kept_for_the_largest_image(
    tmp_path: Path, name: str, largest: int, first: int
) -> None:
    (encoder,) = encoders(write_projector(tmp_path / "p.gguf", TOWERS[name]))
    assert (encoder.n_rows_max, encoder.n_rows) == (largest, first)


class TestTogether:
    """The sum of a model and a projector."""

    @staticmethod
    def both(path: Path, beside: Path, placement: Placement, **more: bool) -> MemoryEstimate:
        estimator = WithProjector(MetadataEstimator(), str(beside), **more)
        return estimator.estimate(model(path), placement, [GPU])

    @pytest.mark.parametrize(
        ("placement", "offload", "device"),
        [(ON_GPU, True, "a"), (ON_GPU, False, HOST), (Placement(), True, HOST)],
    )
    def test_it_lies_on_one_device(
        self, path: Path, tmp_path: Path, placement: Placement, offload: bool, device: str
    ) -> None:
        beside = write_projector(tmp_path / "p.gguf", TOWERS["gemma-3-4b"])
        both = self.both(path, beside, placement, is_offloaded=offload)
        alone = MetadataEstimator().estimate(model(path), placement, [GPU])
        projector = read_projector(str(beside), device)
        for each, cost in both.expected.items():
            more = projector.weights_bytes if each == device else 0
            assert cost.weights_bytes == alone.expected[each].weights_bytes + more
            assert both.upper[each] > alone.upper[each] or each not in (device, HOST)
        assert both.upper[device] - alone.upper[device] >= projector.upper_bytes
        assert both.confidence == "high"

    def test_without_flash_attention_a_gpu_needs_more(self, path: Path, tmp_path: Path) -> None:
        # Heads of 64 and of 88; kernels exist for the former only.
        tower = TOWERS["gemma-3-4b"]
        usual, odd = (
            write_projector(tmp_path / f"{head}.gguf", tower.sized(n_embd=16 * head))
            for head in (64, 88)
        )
        usual_upper, odd_upper = (self.both(path, each, ON_GPU).upper["a"] for each in (usual, odd))
        assert odd_upper - usual_upper > 16 * 4096**2 * 4

    def test_one_that_is_not_known_makes_it_a_rough_estimate(
        self, path: Path, tmp_path: Path
    ) -> None:
        tower = TOWERS["gemma-3-4b"]
        known = write_projector(tmp_path / "known.gguf", tower)
        metadata: dict[str | bytes, Any] = {
            "general.architecture": "clip",
            "clip.projector_type": "brand-new",
            "clip.has_vision_encoder": True,
            "clip.vision.embedding_length": tower.n_embd,
            "clip.vision.feed_forward_length": tower.n_ff,
            "clip.vision.attention.head_count": tower.n_head,
            "clip.vision.block_count": tower.n_layer,
            "clip.vision.image_size": tower.image_size,
            "clip.vision.patch_size": tower.patch_size,
        }
        new = write_tensors(tmp_path / "new.gguf", metadata, layers(tower))
        both = self.both(path, new, ON_GPU)
        assert both.confidence == "low"
        assert any("'brand-new' is not known here" in note for note in both.notes)
        # Though nothing is known of what comes after its layers.
        assert both.upper["a"] > self.both(path, known, ON_GPU).upper["a"]


class TestFiles:
    """What is loaded of a file, and files that are none."""

    def test_layers_that_are_not_computed_are_left_in_it(self, tmp_path: Path) -> None:
        tower = TOWERS["gemma-3-4b"]
        extra = {f"v.blk.{tower.n_layer}.ffn_up.weight": ("f32", (1024, 1024))}
        plain = write_projector(tmp_path / "plain.gguf", tower)
        longer = write_projector(tmp_path / "longer.gguf", replace(tower, more=extra))
        sizes = {read_projector(str(each)).weights_bytes for each in (plain, longer)}
        assert len(sizes) == 1

    def test_a_model_is_refused(self, path: Path) -> None:
        with pytest.raises(ModelFileError, match="holds a model \\(llama\\)") as caught:
            encoders(path)
        assert caught.value.param == "mmproj"

    def test_one_without_encoders_is_refused(self, tmp_path: Path) -> None:
        empty = write_tensors(tmp_path / "p.gguf", {"general.architecture": "clip"}, {})
        with pytest.raises(ModelFileError, match="neither of images nor of sound"):
            encoders(empty)

    def test_a_size_that_is_missing_is_named(self, tmp_path: Path) -> None:
        tower = replace(TOWERS["gemma-3-4b"], metadata={"vision.image_size": 0})
        with pytest.raises(ModelFileError, match=r"clip\.vision\.image_size"):
            encoders(write_projector(tmp_path / "p.gguf", tower))
