"""Headers and shapes of model files, read once as long as the files stay the same."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from msgspec import Struct

from llm_router_mw.gguf import GGUFHeader, read_headers
from llm_router_mw.memory.hyperparameters import Hyperparameters, read_hyperparameters
from llm_router_mw.memory.identity import FileIdentity, model_files
from llm_router_mw.types import Model

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Remembered(Generic[KeyT, ValueT]):
    """The last *size* values by key."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()

    def get(self, key: KeyT) -> ValueT | None:
        """Return what was remembered for *key*."""
        value = self._values.get(key)
        if value is not None:
            # Another thread may have dropped it meanwhile; that does not matter.
            self._values.pop(key, None)
            self._values[key] = value
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def put(self, key: KeyT, value: ValueT) -> ValueT:
        """Remember *value*, at the cost of what was not asked for longest; return it."""
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return value


class ModelFile(Struct, frozen=True, kw_only=True):
    """What the files of a model say."""

    identity: tuple[FileIdentity, ...]
    """Which files these were: all parts, and the adapters."""
    headers: tuple[GGUFHeader, ...]
    shape: Hyperparameters

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts together."""
        return sum(header.file_bytes for header in self.headers)


class ModelFiles:
    """Reads model files; a file that has not changed is read once."""

    def __init__(self, size: int = 64) -> None:
        self._known: Remembered[tuple[FileIdentity, ...], ModelFile] = Remembered(size)

    def read(self, model: Model) -> ModelFile:
        """Return what the files of *model* say.

        Raises:
            ModelFileError: a file is missing or is no language model.
        """
        identity = model_files(model)
        known = self._known.get(identity)
        if known is not None:
            return known
        headers = read_headers(model.path)
        shape = read_hyperparameters(*headers)
        return self._known.put(identity, ModelFile(identity=identity, headers=headers, shape=shape))
