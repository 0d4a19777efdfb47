"""What a GGUF file says before its weights begin."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llm_router_mw.gguf.cursor import ValueType

Scalar = int | float | bool | str


class GGUFArray(Struct, frozen=True):
    """An array of the metadata: always its type and length, its items only if they are few."""

    item_type: ValueType
    length: int
    items: tuple[int | float | bool, ...] | None = None
    """None for strings, and for more numbers than a model has layers."""


class GGUFTensor(Struct, frozen=True):
    """Where a tensor lies; ``shape[0]`` is the length of a row."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    """Number in :data:`~llm_router_mw.gguf.ggml_types.GGML_TYPES`, or one that is newer than it."""
    offset: int
    """Bytes from the header's ``data_offset``."""
    size_bytes: int | None
    """None if the type is not known."""


class GGUFHeader(Struct, frozen=True, kw_only=True):
    """Everything that a GGUF file says before its weights begin."""

    version: int
    metadata: Mapping[str, Scalar | GGUFArray]
    tensors: tuple[GGUFTensor, ...]
    alignment: int
    data_offset: int
    """Where the weights begin, in bytes from the start of the file."""
    file_bytes: int

    @property
    def architecture(self) -> str | None:
        """Name of the model's architecture (``llama``); also the prefix of its own keys."""
        return self.text("general.architecture")

    @property
    def chat_template(self) -> str | None:
        """Jinja source of the default chat template."""
        return self.text("tokenizer.chat_template")

    @property
    def n_ctx_train(self) -> int | None:
        """Tokens of context that the model was trained with."""
        return self.integer(f"{self.architecture}.context_length")

    @property
    def file_type(self) -> int | None:
        """llama.cpp's number for the mix of tensor types (``LLAMA_FTYPE_…``)."""
        return self.integer("general.file_type")

    def text(self, key: str) -> str | None:
        """Return the string at *key*; None if there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """Return the integer at *key*; None if there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None
