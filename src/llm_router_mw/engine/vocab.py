"""The vocabulary of a model: text to tokens and back."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import Any

from llm_router_mw.engine.least import LeastTokens
from llm_router_mw.engine.native import llama
from llm_router_mw.errors import InvalidRequestError

_NO_TOKEN = -1
_PIECE_BYTES = 256


class Vocab:
    """Tokenises and detokenises. Lives as long as the model that it belongs to."""

    def __init__(self, model: Any) -> None:
        self.pointer = self._vocab = llama.llama_model_get_vocab(model)
        self._pieces: dict[int, bytes] = {}
        self._special_pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self.usable: bool = llama.llama_vocab_type(self._vocab) != llama.LLAMA_VOCAB_TYPE_NONE
        """Whether there is one at all; llama.cpp aborts the process that uses none."""
        self.size: int = llama.llama_vocab_n_tokens(self._vocab)
        self.adds_bos: bool = llama.llama_vocab_get_add_bos(self._vocab)
        bos = llama.llama_vocab_bos(self._vocab)
        self.bos: int | None = None if bos == _NO_TOKEN else bos
        self.bos_text = self._text(bos)
        self.eos_text = self._text(llama.llama_vocab_eos(self._vocab))

    @cached_property
    def _least(self) -> LeastTokens:
        # Not at load, which must be quick: only texts that are longer than the limit need it.
        return LeastTokens(self._vocab, self.size if self.usable else 0)

    def tokenize(self, text: str, *, add: bool = True, parse: bool = True) -> list[int]:
        """Return the tokens of *text*.

        Special ones are found in the text if *parse*, and put around it, where the model wants
        that, if *add*.

        Raises:
            InvalidRequestError: the text holds half a surrogate pair.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"the text cannot be written as UTF-8 ({error.reason} at character {error.start});"
                " send whole characters"
            ) from error
        # A token is at least a byte; special ones come on top.
        room = len(data) + 4
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = llama.llama_tokenize(self._vocab, data, len(data), tokens, room, add, parse)
            if count >= 0:
                return tokens[:count]
            room = -count

    def least_tokens(self, text: str, limit: int, *, parse: bool = True) -> int:
        """Return a number of tokens that *text* has at least, 0 if it may well be within *limit*.

        To be asked first: llama.cpp's time grows with the square of the special tokens in a text.
        """
        # Half a surrogate pair is found when the text is tokenised.
        data = text.encode(errors="surrogatepass")
        if len(data) <= limit:
            return 0
        # The cheap part may be enough.
        least = self._least.count(data, parse=False)
        if least <= limit and parse:
            least = self._least.count(data)
        return least if least > limit else 0

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the text of *token*, maybe a part of a character.

        That of control tokens and of the unknown one is empty unless *special* asks for it.
        """
        pieces = self._special_pieces if special else self._pieces
        piece = pieces.get(token)
        if piece is None:
            piece = pieces[token] = self._read_piece(token, special)
        return piece

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end a generation. Slow the first time: it asks for each token."""
        is_end = llama.llama_vocab_is_eog
        return tuple(token for token in range(self.size) if is_end(self._vocab, token))

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that the model must never choose, as its file says."""
        count = ctypes.c_int32()
        tokens = llama.llama_vocab_get_suppress_tokens(self._vocab, ctypes.byref(count))
        return tuple(tokens[: count.value]) if count.value else ()

    def is_end(self, token: int) -> bool:
        """Tell whether *token* ends a generation."""
        return bool(llama.llama_vocab_is_eog(self._vocab, token))

    def _read_piece(self, token: int, special: bool) -> bytes:
        while True:
            room = len(self._buffer)
            size = llama.llama_token_to_piece(self._vocab, token, self._buffer, room, 0, special)
            if size >= 0:
                return self._buffer.raw[:size]
            self._buffer = ctypes.create_string_buffer(-size)

    def _text(self, token: int) -> str:
        if token == _NO_TOKEN:
            return ""
        text: bytes = llama.llama_vocab_get_text(self._vocab, token)
        return text.decode(errors="replace")
