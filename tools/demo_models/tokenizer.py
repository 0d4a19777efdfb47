"""A vocabulary in the manner of SentencePiece, and the encoding that llama.cpp does with it.

llama.cpp's "llama" tokenizer starts from single characters and always joins the neighbours whose
joined piece has the highest score. Scores are the (negated) order in which byte-pair encoding found
the pieces, so both sides agree token for token. A character without a piece falls back to bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

SPACE = "\u2581"
UNKNOWN, BEGIN, END = "<unk>", "<s>", "<|end|>"
ROLES = ("system", "user", "assistant")
CONTROL = (BEGIN, END, *(f"<|{role}|>" for role in ROLES))

NEVER = 1 << 30
"""The rank of two neighbours that no piece joins."""

# No piece crosses these borders: digits stay single (sums need them so), words keep the space
# before them, and marks stay apart from letters. So each chunk can be encoded alone.
_CHUNK = re.compile(rf"{SPACE}?[A-Za-z]+|[0-9]|{SPACE}?[^A-Za-z0-9{SPACE}]+|{SPACE}")


class Tokenizer:
    """Pieces with their ids and scores; the ids of control tokens and bytes come first."""

    def __init__(self, pieces: list[str]) -> None:
        self.control = [UNKNOWN, *CONTROL]
        self.bytes = [f"<0x{byte:02X}>" for byte in range(256)]
        self.pieces = pieces
        self.tokens = [*self.control, *self.bytes, *pieces]
        first = len(self.tokens) - len(pieces)
        self.scores = [0.0] * first + [-float(rank) for rank in range(len(pieces))]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self._rank = {piece: rank for rank, piece in enumerate(pieces)}
        self._encode_chunk = cache(self._join)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The ids of a plain text, in which control tokens have no meaning."""
        chunks = _CHUNK.findall(text.replace(" ", SPACE))
        return [token for chunk in chunks for token in self._encode_chunk(chunk)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control tokens are written out."""
        out = b""
        for token in (self.tokens[i] for i in ids):
            is_byte = token.startswith("<0x") and len(token) == 6
            out += bytes([int(token[3:5], 16)]) if is_byte else token.encode()
        return out.decode(errors="replace").replace(SPACE, " ")

    def _join(self, chunk: str) -> tuple[int, ...]:
        parts = list(chunk)
        while len(parts) > 1:
            ranks = [self._rank.get(a + b, NEVER) for a, b in pairwise(parts)]
            i = ranks.index(min(ranks))
            if ranks[i] == NEVER:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids: list[int] = []
        for part in parts:
            if part in self._rank:
                ids.append(self.ids[part])
            else:
                ids += [self.ids[f"<0x{byte:02X}>"] for byte in part.encode()]
        return tuple(ids)


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Byte-pair encoding over ``texts``, until there are ``size`` tokens in all."""
    counts = Counter(chunk for text in texts for chunk in _CHUNK.findall(text.replace(" ", SPACE)))
    words = {chunk: list(chunk) for chunk in counts}
    letters = {letter for chunk in counts for letter in chunk}
    merged: list[str] = []
    room = size - 256 - 1 - len(CONTROL) - len(letters)
    while len(merged) < room:
        pairs: Counter[tuple[str, str]] = Counter()
        for chunk, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[chunk]
        # The alphabet breaks ties: the same text must always give the same vocabulary.
        (a, b), count = max(pairs.items(), key=lambda item: (item[1], item[0]))
        if count < 2:
            break
        merged.append(a + b)
        for parts in words.values():
            i = 0
            while i < len(parts) - 1:
                if parts[i] == a and parts[i + 1] == b:
                    parts[i : i + 2] = [a + b]
                i += 1
    # Single characters need no rank of their own: nothing is joined to make them.
    return Tokenizer([*dict.fromkeys(merged), *sorted(letters)])
