"""Writes GGUF files by hand, well-formed or not, for tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llm_router_mw.gguf import ValueType

Item = int | float | bool | str | bytes

F32 = 0

_CODES = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


def u32(value: int) -> bytes:
    """Return *value* in four bytes."""
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    """Return *value* in eight bytes."""
    return struct.pack("<Q", value)


def string(text: str | bytes) -> bytes:
    """Return *text* behind its length."""
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw)) + raw


def scalar(kind: ValueType, value: float) -> bytes:
    """Return *value* behind its type."""
    return u32(kind) + struct.pack("<" + _CODES[kind], value)


def array(kind: ValueType, values: Sequence[float] | Sequence[str]) -> bytes:
    """Return an array behind its type."""
    head = u32(ValueType.ARRAY) + u32(kind) + u64(len(values))
    if kind is ValueType.STRING:
        return head + b"".join(string(str(value)) for value in values)
    return head + struct.pack(f"<{len(values)}{_CODES[kind]}", *values)


def value(item: Item) -> bytes:
    """Return *item* as the GGUF value that fits it; bytes are a value that is ready."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return u32(ValueType.STRING) + string(item)
    if isinstance(item, bool):
        return scalar(ValueType.BOOL, item)
    if isinstance(item, int):
        return scalar(ValueType.UINT32, item)
    return scalar(ValueType.FLOAT32, item)


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry; *offset* None places it behind the one before."""

    name: str | bytes
    shape: tuple[int, ...] = (4,)
    ggml_type: int = F32
    size_bytes: int = 16
    offset: int | None = None
    n_dims: int | None = None


@dataclass(frozen=True)
class GGUFFile:
    """A GGUF file whose every field can be made to lie."""

    metadata: Mapping[str | bytes, Item] = field(default_factory=dict)
    tensors: Sequence[Tensor] = ()
    version: int = 3
    n_tensors: int | None = None
    n_keys: int | None = None
    alignment: int = 32
    magic: bytes = b"GGUF"

    def header(self) -> bytes:
        """Return everything before the padding."""
        parts = [
            self.magic,
            u32(self.version),
            u64(len(self.tensors) if self.n_tensors is None else self.n_tensors),
            u64(len(self.metadata) if self.n_keys is None else self.n_keys),
        ]
        parts += [string(key) + value(item) for key, item in self.metadata.items()]
        offset = 0
        for tensor in self.tensors:
            parts.append(self._entry(tensor, offset))
            offset = self._padded(offset + tensor.size_bytes)
        return b"".join(parts)

    def data(self) -> bytes:
        """Return the whole file."""
        header = self.header()
        weights = bytearray()
        for tensor in self.tensors:
            weights += bytes(self._padded(len(weights)) - len(weights)) + bytes(tensor.size_bytes)
        return header + bytes(self._padded(len(header)) - len(header)) + bytes(weights)

    def write(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.data())
        return path

    def _padded(self, size: int) -> int:
        return size + -size % self.alignment

    @staticmethod
    def _entry(tensor: Tensor, offset: int) -> bytes:
        n_dims = len(tensor.shape) if tensor.n_dims is None else tensor.n_dims
        return b"".join(
            [
                string(tensor.name),
                u32(n_dims),
                *(u64(length) for length in tensor.shape),
                u32(tensor.ggml_type),
                u64(offset if tensor.offset is None else tensor.offset),
            ]
        )


def small_model(extra: Mapping[str | bytes, Item] = {}) -> GGUFFile:
    """Return a well-formed file that looks like a model, with *extra* metadata."""
    return GGUFFile(
        metadata={
            "general.architecture": "llama",
            "general.file_type": 7,
            "llama.context_length": 512,
            "llama.rope.freq_base": 10000.0,
            "llama.attention.head_count_kv": array(ValueType.INT32, [4, 4, 2]),
            "tokenizer.ggml.tokens": array(ValueType.STRING, ["<s>", "a", "the"]),
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.chat_template": "{{ messages }}",
            **extra,
        },
        tensors=(Tensor("token_embd.weight", (4, 3), F32, 48), Tensor("output_norm.weight")),
    )


def write_gguf(
    path: Path, metadata: Mapping[str | bytes, Item] = {}, tensors: Sequence[Tensor] = ()
) -> Path:
    """Write a well-formed GGUF file with *metadata* and *tensors* of zeros; return its path."""
    return GGUFFile(metadata=metadata, tensors=tensors).write(path)
