"""Feed-forward networks of the layers, read from the shapes of their matrices.

What files say of themselves is not enough: some give the size of a network that they do not have,
or that of an expert under another name, and none says whether there is a gate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum

from msgspec import Struct

from llm_router_mw.gguf import GGUFHeader

_MATRIX = re.compile(r"blk\.(\d+)\.ffn_(up|gate|gate_up|down)(_exps|_shexp|)\.weight")


class Gate(Enum):
    """How the gate of a network is computed."""

    NONE = "none"
    OWN = "own"
    """By a matrix of its own."""
    FUSED = "fused"
    """Together with what it lets through."""


class FeedForward(Struct, frozen=True, kw_only=True):
    """The networks of one layer; sizes are elements, 0 is none."""

    n_ff: int = 0
    gate: Gate = Gate.OWN
    n_ff_exp: int = 0
    """Of one expert."""
    n_ff_shared: int = 0
    """Of what every token goes through beside its experts."""


def read_feed_forwards(
    headers: Iterable[GGUFHeader], n_layer: int
) -> tuple[FeedForward, ...] | None:
    """Return the networks of each layer; None if the files hold no such matrices."""
    shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in range(n_layer)]
    found = False
    for header in headers:
        for tensor in header.tensors:
            match = _MATRIX.fullmatch(tensor.name)
            if match and int(match[1]) < n_layer and len(tensor.shape) > 1:
                shapes[int(match[1])][match[2] + match[3]] = tensor.shape
                found = True
    return tuple(_network(layer) for layer in shapes) if found else None


def _network(shapes: dict[str, tuple[int, ...]]) -> FeedForward:
    n_ff, gate = _size(shapes, "")
    experts, _ = _size(shapes, "_exps")
    shared, _ = _size(shapes, "_shexp")
    return FeedForward(n_ff=n_ff, gate=gate, n_ff_exp=experts, n_ff_shared=shared)


def _size(shapes: dict[str, tuple[int, ...]], kind: str) -> tuple[int, Gate]:
    """Return the width of a network: what its last matrix takes."""
    down, up = shapes.get(f"down{kind}"), shapes.get(f"up{kind}")
    rows: Sequence[int] = down or (up[1:] if up else ())
    if not rows:
        return 0, Gate.OWN
    width = rows[0]
    if f"gate{kind}" in shapes:
        return width, Gate.OWN
    is_fused = f"gate_up{kind}" in shapes or (up is not None and up[1] == 2 * width)
    return width, Gate.FUSED if is_fused else Gate.NONE
