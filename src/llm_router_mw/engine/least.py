"""How many tokens a text has at least: cheap to know, where tokenising it may take long."""

from __future__ import annotations

from typing import Any

from llm_router_mw.engine.native import llama

_MAX_LITERALS = 512
"""Each is looked for in the whole text."""
_STRIPS = llama.LLAMA_TOKEN_ATTR_LSTRIP | llama.LLAMA_TOKEN_ATTR_RSTRIP
_SPECIAL = (
    llama.LLAMA_TOKEN_ATTR_CONTROL
    | llama.LLAMA_TOKEN_ATTR_USER_DEFINED
    | llama.LLAMA_TOKEN_ATTR_UNKNOWN
)
_KEEP_ALL_BYTES = (llama.LLAMA_VOCAB_TYPE_SPM, llama.LLAMA_VOCAB_TYPE_BPE)
"""Other kinds drop spaces, or make a single unknown token of any length of text."""
_BYTE_TOKENS = frozenset(b"<0x%02X>" % byte for byte in range(256))
# What byte-level vocabularies write in the place of the bytes: visible characters.
_BYTE_LETTERS = frozenset(
    chr(code).encode() for code in (*range(33, 127), *range(161, 173), *range(174, 324))
)


class LeastTokens:
    """Knows the longest token and the special ones of a vocabulary. Asks for each token once."""

    def __init__(self, vocab: Any, n_tokens: int) -> None:
        texts: list[bytes] = [llama.llama_vocab_get_text(vocab, each) for each in range(n_tokens)]
        attributes = [llama.llama_vocab_get_attr(vocab, each) for each in range(n_tokens)]
        self._strips = any(attribute & _STRIPS for attribute in attributes)
        special = {
            text
            for text, attribute in zip(texts, attributes, strict=True)
            if attribute & _SPECIAL and text
        }
        # llama.cpp takes the longest ones out of the text first.
        literals = sorted(special, key=len, reverse=True)
        self._literals = literals if len(literals) <= _MAX_LITERALS else []
        self._longest = 0
        """Bytes; 0 is unknown."""
        if _keeps_all_bytes(vocab, set(texts)):
            # The text of a token is never shorter than what it stands for: a space takes two or
            # three bytes there.
            self._longest = max(map(len, texts))

    def count(self, data: bytes, *, parse: bool = True) -> int:
        """Return a number of tokens that the text *data* has at least.

        Special ones count as such only if *parse*.
        """
        n_special = 0
        if parse:
            for literal in self._literals:
                n_found = data.count(literal)
                if n_found:
                    n_special += n_found
                    # What is left on both sides must not become another one together.
                    data = data.replace(literal, b"\0")
        if not self._longest:
            return n_special
        # Some special tokens swallow the spaces around them.
        n_bytes = len(b"".join(data.split())) if self._strips else len(data)
        return n_special + max(0, n_bytes - n_special) // self._longest


def _keeps_all_bytes(vocab: Any, texts: set[bytes]) -> bool:
    """Whether each byte of a text comes to be in some token."""
    if llama.llama_vocab_type(vocab) not in _KEEP_ALL_BYTES:
        return False
    # Some byte-pair tokenizers drop spaces.
    if llama.llama_tokenize(vocab, b" ", 1, None, 0, False, False) == 0:
        return False
    return texts >= _BYTE_TOKENS or texts >= _BYTE_LETTERS
