"""Hashes of how a conversation begins: enough to find what fits, without telling what was said."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from llm_router_mw.engine.slots import CacheKey

BLOCK_TOKENS: Final = 64
_DIGEST_BYTES = 8
_TOKEN_BYTES = 4


def hashed_key(key: CacheKey) -> str:
    """Return *key* (namespace and adapters) as text that is the same in every process."""
    return blake2b(repr(key).encode(errors="surrogatepass"), digest_size=16).hexdigest()


def packed(tokens: Sequence[int]) -> bytes:
    """Return *tokens* as 32-bit little-endian integers."""
    numbers = array("i", tokens)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unpacked(data: bytes) -> list[int]:
    """Return the tokens that :func:`packed` made *data* of."""
    numbers = array("i", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def block_hashes(tokens: Sequence[int], key: str) -> bytes:
    """Return a hash for each full block of *tokens*, over all of them up to the block's end.

    With another *key*, a text as :func:`hashed_key` gives it, equal tokens have other hashes.
    """
    data = packed(tokens)
    size = BLOCK_TOKENS * _TOKEN_BYTES
    so_far = blake2b(digest_size=_DIGEST_BYTES, key=key.encode())
    hashes = bytearray()
    for end in range(size, len(data) + 1, size):
        so_far.update(data[end - size : end])
        hashes += so_far.copy().digest()
    return bytes(hashes)


class Beginning:
    """The tokens of a request, in the forms in which a snapshot is looked for by them."""

    def __init__(self, tokens: Sequence[int], key: CacheKey) -> None:
        self.key = hashed_key(key)
        self.n_tokens = len(tokens)
        self.blocks = block_hashes(tokens, self.key)
        self._packed = packed(tokens)

    def common(self, blocks: bytes, tokens: bytes) -> int:
        """Return how many tokens are also the first of *tokens*, which has such *blocks*."""
        length = common_blocks(self.blocks, blocks) * BLOCK_TOKENS
        # Equal hashes of eight bytes are not quite proof enough for somebody's conversation.
        if self._packed[: length * _TOKEN_BYTES] != tokens[: length * _TOKEN_BYTES]:
            return 0
        while self._token(self._packed, length) == self._token(tokens, length) != b"":
            length += 1
        return length

    @staticmethod
    def _token(packed_tokens: bytes, index: int) -> bytes:
        return packed_tokens[index * _TOKEN_BYTES : (index + 1) * _TOKEN_BYTES]


def common_blocks(left: bytes, right: bytes) -> int:
    """Return how many blocks at the beginning have equal hashes."""
    low, high = 0, min(len(left), len(right)) // _DIGEST_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        # A hash covers all that comes before its block.
        end = middle * _DIGEST_BYTES
        if left[end - _DIGEST_BYTES : end] == right[end - _DIGEST_BYTES : end]:
            low = middle
        else:
            high = middle - 1
    return low
