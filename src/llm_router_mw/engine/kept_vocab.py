"""The vocabulary of a model whose weights were freed, so that it need not be read at each wake.

With a large vocabulary that is half of the time that a load takes: llama.cpp builds tables of all
tokens and merges. Whoever wakes loads the weights alone, under the pretence that the file has no
vocabulary, but as many tokens.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

from llm_router_mw.engine.native import llama, log
from llm_router_mw.engine.vocab import Vocab

DUMMIES: Final = b" dummy tokens"
"""Part of the warning that llama.cpp gives of the pretence."""
_TOKENIZER: Final = b"tokenizer.ggml.model"
_NO_VOCABULARY: Final = b"no_vocab"
_ARCHITECTURE: Final = b"general.architecture"
_VALUE_BYTES: Final = 128

_Identity = tuple[int, ...]


class KeptVocab:
    """A vocabulary without weights, in memory until :meth:`close`."""

    def __init__(self, path: str) -> None:
        """Read that of the file at *path*.

        Raises:
            OSError: the file cannot be read, or llama.cpp does not take it.
            ValueError: the model cannot be loaded without it.
        """
        self._identity = _identity(path)
        parameters = llama.llama_model_default_params()
        parameters.vocab_only = True
        self._pointer = llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._pointer:
            raise OSError("llama.cpp reads no vocabulary in it")
        self.vocab = Vocab(self._pointer)
        self._count_key = self._metadata(_ARCHITECTURE) + b".vocab_size"
        # Some architectures tell their variants apart by it, so it must stay what it is.
        if self._metadata(self._count_key) not in (b"", b"%d" % self.vocab.size):
            self.close()
            raise ValueError("the file says another number of tokens than it has")

    def _metadata(self, key: bytes) -> bytes:
        """Return what the file says under *key*; nothing if it does not say, or at length."""
        value = ctypes.create_string_buffer(_VALUE_BYTES)
        size = llama.llama_model_meta_val_str(self._pointer, key, value, _VALUE_BYTES)
        return value.value if 0 <= size < _VALUE_BYTES else b""

    def is_of(self, path: str) -> bool:
        """Tell whether this is the vocabulary of the file that is at *path* now."""
        try:
            return _identity(path) == self._identity
        except OSError:
            return False

    def stand_in(self, parameters: Any) -> None:
        """Let a load with *parameters* leave the vocabulary out."""
        # The last one, empty, is the end.
        overrides = (llama.llama_model_kv_override * 3)()
        without, count, _ = overrides
        without.tag, without.key = llama.LLAMA_KV_OVERRIDE_TYPE_STR, _TOKENIZER
        without.value.val_str = _NO_VOCABULARY
        count.tag, count.key = llama.LLAMA_KV_OVERRIDE_TYPE_INT, self._count_key
        count.value.val_i64 = self.vocab.size
        parameters.kv_overrides = overrides

    def close(self) -> None:
        """Free it. Whatever uses it must be gone already."""
        llama.llama_model_free(self._pointer)


def keep_vocab(path: str) -> KeptVocab | None:
    """Return the vocabulary of the file at *path*; None if it cannot be kept."""
    try:
        kept = KeptVocab(path)
    except (OSError, ValueError):
        # What is wrong with the file, the next load says.
        log.clear()
        return None
    # Slow, and needed by whoever generates: now nobody waits.
    _ = kept.vocab.ends
    return kept


def _identity(path: str) -> _Identity:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
