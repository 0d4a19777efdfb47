"""The table of tensor types agrees with ggml's own."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import pytest

from llm_router_mw.gguf import GGML_TYPES, tensor_bytes


def ggml() -> ctypes.CDLL:
    library = ctypes.CDLL(str(next(Path(llama_cpp.__file__).parent.glob("lib/libggml-base.*"))))
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    return library


@pytest.mark.parametrize("number", GGML_TYPES)
def test_sizes_are_those_of_ggml(number: int) -> None:
    library, kind = ggml(), GGML_TYPES[number]
    assert library.ggml_type_name(number).decode().lower() == kind.name.lower()
    assert library.ggml_blck_size(number) == kind.block_size
    assert library.ggml_type_size(number) == kind.block_bytes


def test_no_type_of_ggml_is_missing() -> None:
    library = ggml()
    last = max(GGML_TYPES)
    assert {number for number in range(last + 1) if library.ggml_blck_size(number)} == set(
        GGML_TYPES
    )


def test_a_tensor_occupies_its_blocks() -> None:
    assert tensor_bytes(8, (64, 3)) == 2 * 34 * 3
    assert tensor_bytes(0, ()) == 4
    assert tensor_bytes(0, (0, 7)) == 0


def test_an_unknown_type_has_no_size() -> None:
    assert tensor_bytes(4, (32,)) is None


def test_half_a_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="rows of 33 elements are no multiple of Q8_0's block"):
        tensor_bytes(8, (33,))
