"""Which weights the processor's backend rearranges when it reads them, instead of mapping them.

Rules of ``ggml_repack_get_optimal_repack_type`` (ggml-cpu/repack.cpp). The sizes stay the same, but
a mapped file's pages and the rearranged copy are in memory at once.
"""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGUFTensor

_CPU_INFO = Path("/proc/cpuinfo")
_ARM = {"q1_0": 4, "q4_0": 4, "q8_0": 4, "iq4_nl": 4, "mxfp4": 4}
_ARM_K = {"q4_k": 8, "q5_k": 8, "q6_k": 8}
_BY_FEATURE: dict[str, dict[str, int]] = {
    "avx2": {"q4_0": 8, "q4_k": 8, "iq4_nl": 8, "mxfp4": 8},
    "avx512f": {"q2_k": 8},
    "asimddp": _ARM | _ARM_K,
}
"""Types by feature of the processor, and the number of rows that a tensor must be a multiple of."""


@cache
def rows_by_type() -> dict[int, int]:
    """Return ggml types that are rearranged here, and the rows that they come in."""
    features = _features()
    return {
        GGML_TYPE_NUMBERS[name]: rows
        for feature, types in _BY_FEATURE.items()
        if feature in features
        for name, rows in types.items()
    }


def is_repacked(tensor: GGUFTensor, *, of_experts: bool) -> bool:
    """Whether a matrix that lies on the host is rearranged.

    It has two dimensions, and as *of_experts* three.
    """
    rows = rows_by_type().get(tensor.ggml_type)
    if rows is None or tensor.shape[1:2] == ():
        return False
    n_dims = max((axis for axis, size in enumerate(tensor.shape, 1) if size > 1), default=1)
    return n_dims == (3 if of_experts else 2) and tensor.shape[1] % rows == 0


def _features() -> set[str]:
    """Return what the processor can do, in Linux' words."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return {"asimddp"}
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
