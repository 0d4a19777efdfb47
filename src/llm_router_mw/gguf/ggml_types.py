"""Sizes of ggml's tensor types: what a tensor of a GGUF file occupies."""

from __future__ import annotations

from math import prod

from msgspec import Struct


class GGMLType(Struct, frozen=True):
    """A tensor type: ``block_size`` elements are stored together in ``block_bytes`` bytes."""

    name: str
    block_size: int
    block_bytes: int


GGML_TYPES: dict[int, GGMLType] = {
    0: GGMLType("F32", 1, 4),
    1: GGMLType("F16", 1, 2),
    2: GGMLType("Q4_0", 32, 18),
    3: GGMLType("Q4_1", 32, 20),
    6: GGMLType("Q5_0", 32, 22),
    7: GGMLType("Q5_1", 32, 24),
    8: GGMLType("Q8_0", 32, 34),
    9: GGMLType("Q8_1", 32, 36),
    10: GGMLType("Q2_K", 256, 84),
    11: GGMLType("Q3_K", 256, 110),
    12: GGMLType("Q4_K", 256, 144),
    13: GGMLType("Q5_K", 256, 176),
    14: GGMLType("Q6_K", 256, 210),
    15: GGMLType("Q8_K", 256, 292),
    16: GGMLType("IQ2_XXS", 256, 66),
    17: GGMLType("IQ2_XS", 256, 74),
    18: GGMLType("IQ3_XXS", 256, 98),
    19: GGMLType("IQ1_S", 256, 50),
    20: GGMLType("IQ4_NL", 32, 18),
    21: GGMLType("IQ3_S", 256, 110),
    22: GGMLType("IQ2_S", 256, 82),
    23: GGMLType("IQ4_XS", 256, 136),
    24: GGMLType("I8", 1, 1),
    25: GGMLType("I16", 1, 2),
    26: GGMLType("I32", 1, 4),
    27: GGMLType("I64", 1, 8),
    28: GGMLType("F64", 1, 8),
    29: GGMLType("IQ1_M", 256, 56),
    30: GGMLType("BF16", 1, 2),
    34: GGMLType("TQ1_0", 256, 54),
    35: GGMLType("TQ2_0", 256, 66),
    39: GGMLType("MXFP4", 32, 17),
    40: GGMLType("NVFP4", 64, 36),
    41: GGMLType("Q1_0", 128, 18),
    42: GGMLType("Q2_0", 64, 18),
}
"""Every type that ggml can still store, by its number; numbers that are missing were withdrawn."""
GGML_TYPE_NUMBERS: dict[str, int] = {
    kind.name.lower(): number for number, kind in GGML_TYPES.items()
}
"""The numbers by lower-case name (``q8_0``), as options name them."""


def tensor_bytes(number: int, shape: tuple[int, ...]) -> int | None:
    """Return the bytes of a tensor of type *number*; None if the type is not known.

    Raises:
        ValueError: a row (``shape[0]``) is not a whole number of blocks.
    """
    kind = GGML_TYPES.get(number)
    if kind is None:
        return None
    row = shape[0] if shape else 1
    if row % kind.block_size:
        raise ValueError(f"rows of {row} elements are no multiple of {kind.name}'s block size")
    return prod(shape) // kind.block_size * kind.block_bytes
