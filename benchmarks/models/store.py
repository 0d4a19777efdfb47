"""The models of the benchmarks: made once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.models.dense import TINY_DENSE, DenseShape, write_dense
from benchmarks.models.encoder import TINY_ENCODER, EncoderShape, write_encoder
from benchmarks.models.hybrid import TINY_HYBRID, HybridShape, write_hybrid

_GENERATION = 1
"""Counted up when the generator changes, so that older files are not taken for its own."""
_WRITERS: Mapping[tuple[str, bool], Callable[[Path], None]] = {
    ("dense", False): lambda path: write_dense(path, DenseShape()),
    ("dense", True): lambda path: write_dense(path, TINY_DENSE),
    ("hybrid", False): lambda path: write_hybrid(path, HybridShape()),
    ("hybrid", True): lambda path: write_hybrid(path, TINY_HYBRID),
    ("encoder", False): lambda path: write_encoder(path, EncoderShape()),
    ("encoder", True): lambda path: write_encoder(path, TINY_ENCODER),
}


class ModelStore:
    """A directory of model files."""

    def __init__(self, directory: Path, *, tiny: bool = False) -> None:
        """Keep the files in *directory*; *tiny* ones are for trying the benchmarks out."""
        self._directory = directory
        self._tiny = tiny

    def path(self, kind: str) -> Path:
        """Return the file of the *kind* of model (dense, hybrid or encoder); make it if need be."""
        size = "-tiny" if self._tiny else ""
        path = self._directory / f"{kind}{size}-{_GENERATION}.gguf"
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".unfinished")
            _WRITERS[kind, self._tiny](unfinished)
            unfinished.rename(path)
        return path
