"""Arrays that llama.cpp takes to place a model: GPUs, their shares, tensors that go elsewhere."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from llm_router_mw.engine.backends import buffer_types, device_pointers
from llm_router_mw.engine.native import llama
from llm_router_mw.errors import ModelLoadError


class _Override(ctypes.Structure):
    """``llama_model_tensor_buft_override``; a list of them ends where the pattern is missing."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p)]


def install_devices(parameters: Any, wanted: Sequence[str]) -> None:
    """Make *parameters* use the GPUs with the ids *wanted* only, in that order.

    Ids that are no ggml's (a UUID) have been restricted to by the environment already.

    Raises:
        ModelLoadError: one of them is not here.
    """
    known = device_pointers()
    if not known or (wanted and not set(wanted) & set(known)):
        return
    missing = [each for each in wanted if each not in known]
    if missing:
        raise ModelLoadError(
            f"llama.cpp does not see the device {missing[0]!r}; there are {', '.join(known)}"
        )
    chosen = (ctypes.c_void_p * (len(wanted) + 1))(*[known[each] for each in wanted])
    parameters.devices = ctypes.addressof(chosen)
    # Bare addresses, here and below: the arrays have to be kept by their holder.
    parameters.chosen = chosen


def install_split(parameters: Any, shares: Sequence[float]) -> None:
    """Make *parameters* divide a model among the GPUs by *shares*.

    Raises:
        ModelLoadError: there are more shares than there may be GPUs.
    """
    size = llama.llama_max_devices()
    if len(shares) > size:
        raise ModelLoadError(
            f"tensor_split has {len(shares)} shares, but llama.cpp takes {size} devices at most; "
            "name one share for each GPU"
        )
    if shares:
        parameters.tensor_split = (ctypes.c_float * size)(*shares)


def install_overrides(
    parameters: Any, overrides: Sequence[tuple[str, str]], used: Sequence[str] | None = None
) -> None:
    """Make *parameters* place tensors by *overrides*: pairs of pattern and buffer type.

    With *used*, GPUs that are not among these are not there: llama.cpp would end the process.

    Raises:
        ModelLoadError: there is no such buffer type.
    """
    if not overrides:
        return
    known = buffer_types(used)
    rows = (_Override * (len(overrides) + 1))()
    for row, (pattern, buffer) in zip(rows, overrides, strict=False):
        if buffer not in known:
            raise ModelLoadError(
                f"override_tensor names the buffer type {buffer!r}, which does not exist here; "
                f"there are {', '.join(sorted(known))}"
            )
        row.pattern, row.buffer_type = pattern.encode(), known[buffer]
    parameters.tensor_buft_overrides = ctypes.addressof(rows)
    parameters.overrides = rows
