"""Made-up vocabularies of real sizes, for byte-pair and for word-piece tokenizers."""

from __future__ import annotations

import string
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, TokenType

from benchmarks.models.words import SYLLABLES, words

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_ENCODER_CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORD_START = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """Texts of the tokens in the order of their ids, their types and the tokenizer's merges."""

    texts: list[str]
    types: list[TokenType]
    merges: list[str]
    silent: npt.NDArray[np.bool_]
    """Tokens that the model must never choose by itself."""

    def write_to(self, writer: GGUFWriter) -> None:
        """Write the tokenizer, its chat template included."""
        writer.add_vocab_size(len(self.texts))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(self.texts)
        writer.add_token_types([int(kind) for kind in self.types])
        writer.add_token_merges(self.merges)
        writer.add_eos_token_id(self.texts.index("<|im_end|>"))
        writer.add_pad_token_id(self.texts.index("<|endoftext|>"))
        writer.add_add_bos_token(False)
        writer.add_chat_template(CHAT_TEMPLATE)


def byte_pair_vocabulary(size: int) -> Vocabulary:
    """Return a vocabulary of *size* tokens in which any text can be written.

    All but some hundred tokens are words with a space before them, and the model only speaks in
    these. So its text, read again, gives the same tokens: a conversation can go on from what the
    context holds of it, as a real model's nearly always can.
    """
    alphabet = _byte_letters()
    space = alphabet[ord(" ")]
    n_words = size - len(alphabet) - len(SYLLABLES) - len(_CONTROL)
    spoken = [space + word for word in islice(words(), n_words)]
    merges = [f"{syllable[0]} {syllable[1]}" for syllable in SYLLABLES]
    # From left to right: what a word begins with is a token too, or the space alone.
    merges += [f"{word[:-2]} {word[-2:]}" for word in spoken]
    texts = [*alphabet, *SYLLABLES, *spoken, *_CONTROL]
    types = [TokenType.NORMAL] * (len(texts) - len(_CONTROL)) + [TokenType.CONTROL] * len(_CONTROL)
    silent = np.ones(len(texts), np.bool_)
    start = len(alphabet) + len(SYLLABLES)
    silent[start : start + len(spoken)] = False
    return Vocabulary(texts, types, merges, silent)


def write_word_piece_vocabulary(writer: GGUFWriter, size: int) -> None:
    """Write a word-piece tokenizer of *size* tokens, the two-syllable words among them."""
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [_WORD_START + letter for letter in letters] + letters
    n_words = size - len(_ENCODER_CONTROL) - len(pieces)
    pieces += [_WORD_START + word for word in islice(words(), n_words)]
    types = [TokenType.CONTROL] * len(_ENCODER_CONTROL) + [TokenType.NORMAL] * len(pieces)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([*_ENCODER_CONTROL, *pieces])
    writer.add_token_types([int(kind) for kind in types])
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)


def _byte_letters() -> list[str]:
    """Return the letter that stands for each byte in byte-level tokenizers (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
