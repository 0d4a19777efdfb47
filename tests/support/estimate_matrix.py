"""Our estimates beside llama.cpp's own dry runs, for models and options drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from llm_router_mw.memory.dry_run_order import DryRunOrder
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.overhead import host_overhead
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import HOST, LoadOptions, Model, Placement
from tests.support.dry_runs import DryRuns
from tests.support.sparse_models import ENCODERS, write_sparse_model

_LARGE_STATES = frozenset({"mamba2-7b", "granite-8b", "qwen35-27b", "mamba2-1.3b"})
"""A dry run really allocates the states of recurrent layers: of a few sequences only here."""


class Comparison(Struct, frozen=True, kw_only=True):
    """Bytes on the host of one load: as llama.cpp sizes its buffers, and as estimated."""

    name: str
    path: str
    options: LoadOptions
    weights: int
    context: int
    compute: int
    """The output buffer among it."""
    our_weights: int
    our_context: int
    our_compute: int
    our_upper: int
    """Without what is in no buffer: the process, the engine."""

    @property
    def real(self) -> int:
        """All buffers together."""
        return self.weights + self.context + self.compute

    @property
    def compute_error(self) -> float:
        """Part by which ``our_compute`` is off; below 0 it is too little."""
        return self.our_compute / self.compute - 1

    @property
    def spare(self) -> int:
        """What ``our_upper`` has above the truth; below 0 it was exceeded."""
        return self.our_upper - self.real

    def __str__(self) -> str:
        default = LoadOptions()
        options = ", ".join(
            f"{name}={value}"
            for name in LoadOptions.__struct_fields__
            if (value := getattr(self.options, name)) != getattr(default, name)
        )
        return (
            f"{self.name} ({options}): compute {self.compute:,} estimated "
            f"{self.compute_error:+.1%}, {self.spare / 2**20:+,.1f} MiB to spare"
        )


class Matrix:
    """Writes the models, asks both sides, and compares."""

    def __init__(self, folder: Path, dry_runs: DryRuns) -> None:
        self._folder = folder
        self._dry_runs = dry_runs
        self._estimator = MetadataEstimator()
        self._paths: dict[str, Path] = {}

    def path(self, name: str) -> Path:
        """Return the file of a model, written on first use."""
        if name not in self._paths:
            self._paths[name] = write_sparse_model(self._folder / f"{name}.gguf", name)
        return self._paths[name]

    def compare(self, name: str, options: Mapping[str, Any]) -> Comparison | None:
        """Compare one load; None if llama.cpp cannot load the model with such options."""
        load = LoadOptions(use_mmap=False, **options)
        path = str(self.path(name))
        answer = self._dry_runs.ask(DryRunOrder(path=path, options=load, placement=Placement()))
        if answer is None or answer.memory is None:
            return None
        buffers = answer.memory.buffers
        assert not answer.memory.note, f"{name} with {options} is not exact"
        model = Model(id=name, path=path, source="test", options=load)
        estimate = self._estimator.estimate(model, Placement(), ())
        ours = estimate.expected[HOST]
        shape = self._estimator.files.read(model).shape
        layers = place_layers(Placement(), (), shape.n_layer_all)
        overhead = host_overhead(shape, resolve_context(shape, load), layers)
        return Comparison(
            name=name,
            path=path,
            options=load,
            weights=sum(each.weights_bytes for each in buffers),
            context=sum(each.context_bytes for each in buffers),
            compute=sum(each.compute_bytes for each in buffers),
            our_weights=ours.weights_bytes,
            our_context=ours.context_bytes,
            our_compute=ours.compute_bytes,
            our_upper=estimate.upper[HOST] - overhead.most,
        )


def drawn_options(name: str, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield *count* sets of options for the model *name*, always the same for a *seed*."""
    chance = random.Random(f"{name} {seed}")
    for _ in range(count):
        yield _encoder_options(chance) if name in ENCODERS else _options(name, chance)


def _encoder_options(chance: random.Random) -> dict[str, Any]:
    return {
        "pooling": chance.choice(["mean", "cls"]),
        "n_ctx": chance.choice([0, 512, 2048]),
        # llama.cpp cannot pool batches that its sequences do not divide.
        "n_batch": chance.choice([128, 512, 1008, 2048]),
        "n_parallel": chance.choice([1, 4, 16]),
        "flash_attn": chance.choice(["auto", "on", "off"]),
    }


def _options(name: str, chance: random.Random) -> dict[str, Any]:
    flash = chance.choice(["auto", "on", "off"])
    unified = chance.random() < 0.5
    plain = ["f16", "f16", "bf16", "f32"]
    quantised = ["q8_0", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]
    # Its graph of turned keys would be too large for llama.cpp.
    turns_keys = not (name.startswith("phi3") and not unified)
    type_k = chance.choice(plain + quantised if turns_keys else plain)
    type_v = chance.choice(plain if flash == "off" else plain + quantised)
    if name.startswith("deepseek"):
        # Keys are the values there.
        type_k = type_v
    n_batch = chance.choice([64, 256, 512, 512, 777, 1024, 2048])
    return {
        "n_ctx": chance.choice([0, 300, 2048, 4096, 10_000, 16_384, 32_768, 65_536]),
        "n_batch": n_batch,
        "n_ubatch": chance.choice([0, 0, 128, 512, n_batch]),
        "n_parallel": chance.choice([1, 2] if name in _LARGE_STATES else [1, 1, 2, 3, 4, 8]),
        "kv_unified": unified,
        "swa_full": chance.random() < 0.3,
        "flash_attn": flash,
        "type_k": type_k,
        "type_v": type_v,
    }
