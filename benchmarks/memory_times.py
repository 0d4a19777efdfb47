"""How long estimates take: of a header with a large vocabulary, and of a dry run."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from llm_router_mw.gguf import ValueType, read_headers
from llm_router_mw.memory.dry_run import DryRunEstimator
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.testing.gguf import array
from llm_router_mw.types import Model, Placement
from tests.support.model_headers import dense_tensors, write_sparse
from tests.support.sparse_models import write_sparse_model

N_TOKENS = 151_936
"""As the Qwen family has them."""
_TIMES = 9
_N_LAYER = 36
_TYPICAL, _SPREAD, _MOST = 1.9, 0.5, 90
"""Lengths of tokens in bytes: a logarithm and its spread, and the most."""


def time_estimates(folder: Path, dry_runs: Sequence[str]) -> Iterator[str]:
    """Yield sentences about how long estimates take; *dry_runs* are models of real sizes."""
    model = _model(_with_vocabulary(folder / "vocabulary.gguf"))
    header = _best(lambda: read_headers(model.path))
    cold = _best(lambda: MetadataEstimator().estimate(model, Placement(), ()))
    known = MetadataEstimator()
    known.estimate(model, Placement(), ())
    warm = _best(lambda: known.estimate(model, Placement(), ()))
    yield (
        f"A cold estimate with {N_TOKENS:,} tokens and as many merges takes {cold * 1e3:.0f} ms, "
        f"{header * 1e3:.0f} ms of it to read the header; a warm one {warm * 1e3:.2f} ms."
    )
    for name in dry_runs:
        tried = _model(write_sparse_model(folder / f"{name}.gguf", name))
        seconds = _best(partial(_dry_run, tried))
        yield f"A dry run of {name} takes {seconds:.2f} s."


def _dry_run(model: Model) -> None:
    assert DryRunEstimator(os.environ, always=True).estimate(model, Placement(), ()) is not None


def _with_vocabulary(path: Path) -> Path:
    chance = random.Random(1)
    words = [
        "x" * min(_MOST, int(chance.lognormvariate(_TYPICAL, _SPREAD)) + 1) for _ in range(N_TOKENS)
    ]
    return write_sparse(
        path,
        metadata={"block_count": _N_LAYER},
        tensors=dense_tensors("q4_k", n_layer=_N_LAYER, n_vocab=N_TOKENS),
        general={
            "tokenizer.ggml.tokens": array(ValueType.STRING, words),
            "tokenizer.ggml.token_type": array(ValueType.INT32, [1] * N_TOKENS),
            "tokenizer.ggml.merges": array(ValueType.STRING, words),
        },
    )


def _model(path: Path) -> Model:
    return Model(id=path.stem, path=str(path), source="benchmarks")


def _best(work: Callable[[], object]) -> float:
    """Return the seconds of the quickest of some runs: others on the machine only slow it down."""
    seconds = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
