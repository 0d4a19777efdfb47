"""Scratch memory of a projector's graph: as much as its hungriest phase holds at once."""

from __future__ import annotations

from math import isqrt

from llm_router_mw.memory.encoders import Encoder
from llm_router_mw.memory.phases import Need
from llm_router_mw.units import MIB

_FLOAT_BYTES = 4
_SMALL = 96
"""Elements for each patch at most: positions, and blocks that nothing fits into any more."""
_RESERVE = 1.05
_RESERVE_BYTES = 16 * MIB
_UNKNOWN_RESERVE = 1.25
_UNKNOWN_RESERVE_BYTES = 64 * MIB


def scratch_need(encoder: Encoder, *, has_flash_attention: bool) -> Need:
    """Return the bytes for the image that is tried while it is loaded, and for the largest.

    The latter has a reserve on top, a larger one for kinds that are not known.
    """
    first = _elements(encoder, encoder.n_rows, 1, has_flash_attention, 0)
    largest = _elements(
        encoder, encoder.n_rows_max, encoder.n_images, has_flash_attention, 2 * encoder.n_embd
    )
    is_known = encoder.kind.is_known
    share = _RESERVE if is_known else _UNKNOWN_RESERVE
    fixed = _RESERVE_BYTES if is_known else _UNKNOWN_RESERVE_BYTES
    largest += _SMALL * encoder.n_rows_max
    return Need(_FLOAT_BYTES * first, int(_FLOAT_BYTES * largest * share) + fixed)


def input_bytes(encoder: Encoder) -> int:
    """Return what the host hands to a GPU for the largest image: values, positions, masks."""
    rows = encoder.n_rows_max
    masks = rows**2 // encoder.n_images if encoder.has_windows else 0
    return _FLOAT_BYTES * (rows * (encoder.row_pixels + _SMALL) + masks)


def result_bytes(encoder: Encoder) -> int:
    """Return the rows that the model is given of the largest image."""
    rows = encoder.n_rows_max // encoder.n_merge**2
    return _FLOAT_BYTES * rows * encoder.n_embd_out * (1 + encoder.n_deepstack)


def _elements(
    encoder: Encoder, n_rows: int, n_images: int, has_flash_attention: bool, spare: int
) -> int:
    """Return the elements that are alive at most; *spare* is of each row of each phase."""
    kind, n_embd, n_ff = encoder.kind, encoder.n_embd, encoder.n_ff
    rows = n_rows + encoder.n_class * n_images
    pixels = rows * encoder.row_pixels
    held = rows * kind.n_held * n_embd + (pixels if kind.holds_image else 0)
    # Room that the image had is seldom used while rows become tokens.
    projecting = _projecting(encoder, n_rows) + (pixels if kind.holds_image else 0)
    # Gemma's matrix is turned before anything else, and waits until the end.
    held += encoder.width * n_embd if encoder.projector == "gemma3" else 0
    scores = rows**2 // n_images
    patches = pixels + pixels * encoder.kernel_bytes // _FLOAT_BYTES + rows * n_embd * kind.n_held
    attention = rows * n_embd * kind.n_attending
    if not has_flash_attention:
        attention += scores * encoder.n_head
    network = rows * (3 * n_embd + n_ff * (3 if encoder.is_gated else 1))
    layers = max(held + max(attention, network), projecting) + spare * rows
    if not encoder.has_windows:
        return max(patches + spare * rows, layers)
    if not has_flash_attention:
        return scores + max(patches + spare * rows, layers)
    # The mask is made half as large before the first layer, and what it leaves is used in pieces.
    wasted = min(scores, rows * max(n_ff, n_embd))
    before = scores + rows * (4 * n_embd + spare) + pixels
    return scores // 2 + max(before, patches, layers + wasted)


def _projecting(encoder: Encoder, n_rows: int) -> int:
    """Return what is alive while the rows become tokens."""
    kind = encoder.kind
    tokens = n_rows // encoder.n_merge**2
    wide = int(n_rows * kind.per_patch + tokens * kind.per_token) + kind.n_queries
    # One row more for each line of patches, twice.
    wide += 2 * isqrt(tokens) if encoder.projector == "pixtral" else 0
    return (
        encoder.width * wide
        + encoder.n_embd_out * 3 * encoder.n_deepstack * tokens
        + encoder.n_embd * 3 * n_rows
    )
