"""A vocabulary apart from the weights: kept while they are freed, or read while they are loaded.

With a large vocabulary that is half of the time that a load takes: llama.cpp builds tables of all
tokens and merges. Whoever has it loads the weights alone, under the pretence that the file has no
vocabulary, but as many tokens.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from threading import Thread
from typing import Any, Final, NamedTuple, Protocol

from llm_router_mw.engine.native import llama, log
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import LLMRouterError, ModelLoadError
from llm_router_mw.gguf import GGUFArray, read_header

DUMMIES: Final = b" dummy tokens"
"""Part of the warning that llama.cpp gives of the pretence."""
_TOKENIZER: Final = "tokenizer.ggml.model"
_TOKENS: Final = "tokenizer.ggml.tokens"
_NO_VOCABULARY: Final = b"no_vocab"
_KEY_BYTES: Final = 128
"""What llama.cpp has for the name of a value that it is told, its end included."""

_Identity = tuple[int, ...]


class Pretence(NamedTuple):
    """What a load is told that leaves the vocabulary of a file out."""

    count_key: bytes
    n_tokens: int
    """Tokens that the file has."""

    def install(self, parameters: Any) -> None:
        """Let a load with *parameters* leave the vocabulary out."""
        # The last one, empty, is the end.
        overrides = (llama.llama_model_kv_override * 3)()
        without, count, _ = overrides
        without.tag, without.key = llama.LLAMA_KV_OVERRIDE_TYPE_STR, _TOKENIZER.encode()
        without.value.val_str = _NO_VOCABULARY
        count.tag, count.key = llama.LLAMA_KV_OVERRIDE_TYPE_INT, self.count_key
        count.value.val_i64 = self.n_tokens
        parameters.kv_overrides = overrides


def pretence_for(path: str) -> Pretence | None:
    """Return what a load of the file at *path* can be told; None if it needs the vocabulary."""
    try:
        header = read_header(path)
    except LLMRouterError:
        return None  # what is wrong with it, the load says
    tokens = header.metadata.get(_TOKENS)
    count_key = f"{header.architecture}.vocab_size"
    if not isinstance(tokens, GGUFArray) or not header.text(_TOKENIZER):
        return None
    if len(count_key.encode()) >= _KEY_BYTES:
        return None
    # Some architectures tell their variants apart by it, so it must stay what it is.
    if header.metadata.get(count_key, tokens.length) != tokens.length:
        return None
    return Pretence(count_key.encode(), tokens.length)


class VocabApart(Protocol):
    """A vocabulary with which weights can be loaded alone."""

    pretence: Pretence

    @property
    def vocab(self) -> Vocab: ...


class KeptVocab:
    """A vocabulary without weights, in memory until :meth:`close`."""

    def __init__(self, path: str, pretence: Pretence) -> None:
        """Read that of the file at *path*.

        Raises:
            OSError: the file cannot be read, or llama.cpp does not take it.
            ValueError: it has another number of tokens than *pretence* says.
        """
        self.pretence = pretence
        self._identity = _identity(path)
        parameters = llama.llama_model_default_params()
        parameters.vocab_only = True
        # It needs no device, and must not begin to use one that the weights do not go to.
        none = (ctypes.c_void_p * 1)()
        parameters.devices = ctypes.addressof(none)
        self._pointer = llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self._pointer:
            raise OSError("llama.cpp reads no vocabulary in it")
        self.vocab = Vocab(self._pointer)
        if self.vocab.size != pretence.n_tokens:
            self.close()
            raise ValueError("it has another number of tokens than its header says")
        # Slow, and needed by whoever generates: now nobody waits for it alone.
        _ = self.vocab.ends

    def is_of(self, path: str) -> bool:
        """Tell whether this is the vocabulary of the file that is at *path* now."""
        try:
            return _identity(path) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Free it. Whatever uses it must be gone already."""
        llama.llama_model_free(self._pointer)


class VocabBeside:
    """A vocabulary that is read in a second thread while the weights are loaded."""

    def __init__(self, path: str, pretence: Pretence) -> None:
        """Begin to read that of the file at *path*."""
        self.pretence = pretence
        self._path = path
        self._kept: KeptVocab | None = None
        self._thread = Thread(target=self._read, name="vocabulary", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):  # then the load says what is wrong
            self._kept = KeptVocab(self._path, self.pretence)

    def finish(self) -> KeptVocab | None:
        """Return what was read, once it was; None if it cannot be read apart."""
        self._thread.join()
        return self._kept

    @property
    def vocab(self) -> Vocab:
        """The vocabulary, once it was read.

        Raises:
            ModelLoadError: it cannot be read apart.
        """
        kept = self.finish()
        if kept is None:
            raise ModelLoadError("the vocabulary cannot be read apart from the weights")
        return kept.vocab


def keep_vocab(path: str) -> KeptVocab | None:
    """Return the vocabulary of the file at *path*; None if it cannot be kept."""
    pretence = pretence_for(path)
    try:
        return None if pretence is None else KeptVocab(path, pretence)
    except (OSError, ValueError):
        # What is wrong with the file, the next load says.
        log.clear()
        return None


def _identity(path: str) -> _Identity:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
