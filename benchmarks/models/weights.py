"""Random weights, written as the blocks of a quantisation: there is nothing to quantise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter

_BLOCK = 32
_BLOCK_BYTES = 18
"""Of ``Q4_0``: a 16-bit scale, then 32 values of four bits."""
_DEVIATION = float(np.std(np.arange(16)))
"""Of a value, in scales."""


class WeightWriter:
    """Adds random tensors to a file."""

    def __init__(self, writer: GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._rng = np.random.default_rng(seed)

    def matrix(
        self,
        name: str,
        rows: int,
        columns: int,
        *,
        gain: float = 1.0,
        silent: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Add a ``Q4_0`` matrix, which keeps the size of what it is multiplied with, × *gain*.

        Rows that are *silent* are zero. *columns* must be a multiple of 32.
        """
        blocks = (
            np.frombuffer(self._rng.bytes(rows * columns // _BLOCK * _BLOCK_BYTES), np.uint8)
            .reshape(rows, columns // _BLOCK, _BLOCK_BYTES)
            .copy()
        )
        scale = gain / (_DEVIATION * columns**0.5)
        # The values of a block are not centred; scales of both signs make up for that.
        scales = np.where(blocks[:, :, 0] & 1, scale, -scale).astype("<f2")
        if silent is not None:
            scales[silent] = 0
        blocks[:, :, :2] = scales[:, :, None].view(np.uint8)
        self._writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=GGMLQuantizationType.Q4_0)

    def half(self, name: str, rows: int, columns: int) -> None:
        """Add a matrix of 16-bit floats."""
        values = self._rng.standard_normal((rows, columns), np.float32) / np.float32(columns**0.5)
        self._writer.add_tensor(name, values.astype(np.float16))

    def random(self, name: str, shape: tuple[int, ...], low: float, high: float) -> None:
        """Add a tensor of 32-bit floats from *low* to *high*."""
        self._add(name, self._rng.uniform(low, high, shape))

    def constant(self, name: str, shape: tuple[int, ...], value: float) -> None:
        """Add a tensor of 32-bit floats that are all *value*."""
        self._add(name, np.full(shape, value))

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        self._writer.add_tensor(name, values.astype(np.float32))
