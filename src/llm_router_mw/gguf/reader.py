"""Reads the header of a GGUF file: facts about a model in milliseconds, without llama.cpp.

The files come from anywhere, so the reader trusts nothing: whatever is wrong with one ends in an
:class:`InvalidGGUFError` within bounded time and memory, before native code sees the file.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf.cursor import SCALARS, Cursor, ValueType
from llm_router_mw.gguf.ggml_types import tensor_bytes
from llm_router_mw.gguf.header import GGUFArray, GGUFHeader, GGUFTensor, Scalar

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
DEFAULT_ALIGNMENT: Final = 32
MAX_KEYS: Final = 65_536
MAX_TENSORS: Final = 131_072
MAX_DIMENSIONS: Final = 4
MAX_NAME_BYTES: Final = 65_535
KEPT_ITEMS: Final = 256
"""Arrays of numbers up to this length are kept: what models say per layer."""

_GIT_LFS: Final = b"version https://git-lfs"
_LIMIT: Final = 2**63
_TENSORS: Final = tuple(struct.Struct(f"<{n_dims}QIQ") for n_dims in range(MAX_DIMENSIONS + 1))
"""Of a tensor, by the number of its dimensions: the shape, the type and the offset."""


def read_header(path: str | os.PathLike[str]) -> GGUFHeader:
    """Return the header of the GGUF file at *path*.

    Raises:
        ModelFileError: the file is missing, cannot be read, or is no regular file.
        InvalidGGUFError: it is not a well-formed GGUF file, or its end is missing.
    """
    where = Path(path)
    with _opened(where) as file:
        return parse_header(Cursor(file, where.name, os.fstat(file.fileno()).st_size))


def parse_header(cursor: Cursor) -> GGUFHeader:
    """Return the header at the beginning of what *cursor* reads.

    Raises:
        InvalidGGUFError: there is no well-formed one, or the end of the file is missing.
    """
    version = _read_version(cursor)
    n_tensors = cursor.unsigned(64, "the number of tensors")
    n_keys = cursor.unsigned(64, "the number of metadata keys")
    if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
        raise cursor.error(f"it announces {n_tensors} tensors and {n_keys} metadata keys")
    metadata = _read_metadata(cursor, n_keys)
    alignment = _alignment(cursor, metadata)
    tensors = _read_tensors(cursor, n_tensors)
    data_offset = cursor.position + -cursor.position % alignment
    _check_data(cursor, tensors, data_offset, alignment)
    return GGUFHeader(
        version=version,
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        alignment=alignment,
        data_offset=data_offset,
        file_bytes=cursor.file_bytes,
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with os.fdopen(_open(path), "rb") as file:
            yield file
    except OSError as error:
        advice = "correct the path" if isinstance(error, FileNotFoundError) else "check the file"
        raise ModelFileError(f"{path.name} cannot be read: {error.strerror}; {advice}") from error


def _open(path: Path) -> int:
    """Return a descriptor of a regular file; a pipe or a device must not block the reader."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:
        raise ModelFileError(f"{path.name!r} is no path: {error}; correct the path") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise ModelFileError(f"{path.name} is {kind}; name a .gguf file")
    return descriptor


def _read_version(cursor: Cursor) -> int:
    if not cursor.file_bytes:
        raise cursor.error("it is empty")
    head = cursor.take(min(len(_GIT_LFS), cursor.file_bytes), "the magic number")
    if head == _GIT_LFS:
        raise cursor.error("it is a Git LFS pointer", "fetch the file itself with git lfs pull")
    if not head.startswith(MAGIC):
        raise cursor.error(f"it begins with {head[:4]!r} instead of {MAGIC!r}", "name a .gguf file")
    cursor.rewind(len(MAGIC))
    version = cursor.unsigned(32, "the version")
    if version and not version & 0xFFFF:
        raise cursor.error(
            "it was written in big-endian byte order", "get a little-endian one or convert it"
        )
    if version not in VERSIONS:
        raise cursor.error(
            f"version {version} is not one of {', '.join(map(str, VERSIONS))}",
            "convert the model again, or update this package if the file is newer",
        )
    return version


def _read_metadata(cursor: Cursor, n_keys: int) -> dict[str, Scalar | GGUFArray]:
    metadata: dict[str, Scalar | GGUFArray] = {}
    for number in range(n_keys):
        key = _read_name(cursor, f"metadata key {number}")
        if key in metadata:
            raise cursor.error(f"metadata key {key!r} appears twice")
        metadata[key] = _read_value(cursor, key)
    return metadata


def _read_value(cursor: Cursor, key: str) -> Scalar | GGUFArray:
    kind = _read_type(cursor, key)
    if kind is ValueType.STRING:
        return cursor.string(f"the value of {key!r}").decode(errors="replace")
    if kind is ValueType.ARRAY:
        return _read_array(cursor, key)
    return cursor.number(kind, f"the value of {key!r}")


def _read_array(cursor: Cursor, key: str) -> GGUFArray:
    kind = _read_type(cursor, key)
    count = cursor.unsigned(64, f"the length of {key!r}")
    what = f"the array {key!r} of {count} items"
    if kind is ValueType.ARRAY:
        # llama.cpp has no nested arrays either.
        raise cursor.error(f"{key!r} is an array of arrays")
    if kind is ValueType.STRING:
        cursor.skip_strings(count, what)
        return GGUFArray(kind, count)
    if count > KEPT_ITEMS:
        cursor.skip(count * SCALARS[kind].size, what)
        return GGUFArray(kind, count)
    return GGUFArray(kind, count, cursor.numbers(kind, count, what))


def _read_type(cursor: Cursor, key: str) -> ValueType:
    number = cursor.unsigned(32, f"the type of {key!r}")
    try:
        return ValueType(number)
    except ValueError as error:
        raise cursor.error(f"{key!r} is of unknown type {number}") from error


def _read_name(cursor: Cursor, what: str) -> str:
    raw = cursor.string(what)
    if not 0 < len(raw) <= MAX_NAME_BYTES:
        raise cursor.error(f"{what} has a name of {len(raw)} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise cursor.error(f"the name of {what} is not UTF-8") from error


def _alignment(cursor: Cursor, metadata: Mapping[str, Scalar | GGUFArray]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or value <= 0 or value & (value - 1):
        raise cursor.error(f"general.alignment is {value!r}, not a power of two")
    return value


def _read_tensors(cursor: Cursor, n_tensors: int) -> tuple[GGUFTensor, ...]:
    tensors: dict[str, GGUFTensor] = {}
    for number in range(n_tensors):
        name = _read_name(cursor, f"tensor {number}")
        if name in tensors:
            raise cursor.error(f"tensor {name!r} appears twice")
        tensors[name] = _read_tensor(cursor, name)
    return tuple(tensors.values())


def _read_tensor(cursor: Cursor, name: str) -> GGUFTensor:
    what = f"tensor {name!r}"
    n_dims = cursor.unsigned(32, what)
    if n_dims > MAX_DIMENSIONS:
        raise cursor.error(f"{what} has {n_dims} dimensions")
    *shape, ggml_type, offset = cursor.fields(_TENSORS[n_dims], what)
    if prod(max(1, length) for length in shape) >= _LIMIT:
        raise cursor.error(f"{what} has the impossible shape {tuple(shape)}")
    try:
        size_bytes = tensor_bytes(ggml_type, tuple(shape))
    except ValueError as error:
        raise cursor.error(f"{what}: {error}") from error
    return GGUFTensor(name, tuple(shape), ggml_type, offset, size_bytes)


def _check_data(
    cursor: Cursor, tensors: tuple[GGUFTensor, ...], data_offset: int, alignment: int
) -> None:
    """Check that the tensors lie one after the other, as llama.cpp wants them, and in the file."""
    expected: int | None = 0
    for tensor in tensors:
        if expected not in (None, tensor.offset):
            raise cursor.error(
                f"the data of tensor {tensor.name!r} is said to begin at {tensor.offset}, "
                f"not at {expected}"
            )
        end = data_offset + tensor.offset + (tensor.size_bytes or 0)
        if end > cursor.file_bytes:
            raise cursor.error(
                f"the file has {cursor.file_bytes} bytes, but tensor {tensor.name!r} "
                f"ends at byte {end}",
                "the file is incomplete, download it again",
            )
        size = tensor.size_bytes
        expected = None if size is None else tensor.offset + size + -size % alignment
