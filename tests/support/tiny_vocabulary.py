"""The tokenizer that all tiny generating models share: SentencePiece, every text can be written."""

from __future__ import annotations

import string
from collections.abc import Sequence

from gguf import GGUFWriter, TokenType
from msgspec import Struct

UNK, BOS, EOS = 0, 1, 2
IM_START, IM_END = 259, 260
FIRST_PIECE = 261
"""The first token that is neither control nor byte."""
WORDS = ("the", "an", "in", "on", "ing", "er", "to", "of", "and", "is", "it", "you")


class Vocabulary(Struct, frozen=True):
    """Texts, types and scores, one of each per token."""

    texts: list[str]
    types: list[int]
    scores: list[float]

    def index(self, piece: str) -> int:
        """Return the token that is written *piece*."""
        return self.texts.index(piece.replace(" ", "▁"))

    def write_to(self, writer: GGUFWriter, *, add_bos: bool = True) -> None:
        """Add the tokenizer; with *add_bos* it puts the beginning-of-sequence token in front."""
        writer.add_vocab_size(len(self.texts))
        writer.add_tokenizer_model("llama")
        writer.add_token_list(self.texts)
        writer.add_token_types(self.types)
        writer.add_token_scores(self.scores)
        writer.add_eos_token_id(EOS)
        writer.add_unk_token_id(UNK)
        writer.add_bos_token_id(BOS)
        writer.add_add_bos_token(add_bos)
        writer.add_add_space_prefix(False)


def make_vocabulary(says: Sequence[str] = (), n_vocab: int = 0) -> Vocabulary:
    """Return a vocabulary that has the pieces *says*, padded to *n_vocab* tokens."""
    texts = ["<unk>", "<s>", "</s>"]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    texts += [f"<0x{value:02X}>" for value in range(256)]
    types += [TokenType.BYTE] * 256
    texts += ["<|im_start|>", "<|im_end|>"]
    types += [TokenType.CONTROL] * 2
    normal = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    # A word can only be reached by merging two tokens, so its beginnings are tokens too.
    normal += [word[:size] for word in WORDS for size in range(2, len(word) + 1)]
    normal += ["▁" + word for word in WORDS]
    normal += [piece.replace(" ", "▁") for piece in says]
    known = set(texts)
    for piece in normal:
        if piece not in known:
            known.add(piece)
            texts.append(piece)
            types.append(TokenType.NORMAL)
    for filler in range(n_vocab - len(texts)):
        texts.append(f"▁filler{filler}")
        types.append(TokenType.NORMAL)
    scores = [-float(index) if index >= FIRST_PIECE else 0.0 for index in range(len(texts))]
    return Vocabulary(texts, [int(kind) for kind in types], scores)
