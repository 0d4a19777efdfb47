"""Text to tokens and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.engine.model import load_model
from llm_router_mw.engine.native import llama
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import LoadOptions
from tests.engine.conftest import Load
from tests.engine.driver import prompt
from tests.support.tiny_models import BOS, EOS, IM_END, IM_START, write_tiny_llama


@pytest.fixture
def vocab(endless: Path) -> Iterator[Vocab]:
    model = load_model(str(endless), LoadOptions(), lambda fraction: True)
    yield model.vocab
    model.close()


def test_special_tokens_are_parsed_and_the_beginning_added(vocab: Vocab) -> None:
    tokens = vocab.tokenize("<|im_start|>a<|im_end|>")
    assert (tokens[:2], tokens[-1]) == ([BOS, IM_START], IM_END)


def test_pieces_make_the_text_again_without_special_tokens(vocab: Vocab) -> None:
    text = "the fox: ä€🦙\n\0 1"
    assert b"".join(map(vocab.piece, vocab.tokenize(text + "<|im_end|>"))).decode() == text


def test_ends_are_known(vocab: Vocab) -> None:
    assert [token for token in range(vocab.size) if vocab.is_end(token)] == [EOS, IM_END]


def test_the_texts_of_beginning_and_end_are_known(vocab: Vocab) -> None:
    assert (vocab.bos, vocab.bos_text, vocab.eos_text) == (BOS, "<s>", "</s>")


def test_a_model_may_lack_them(
    vocab: Vocab, monkeypatch: pytest.MonkeyPatch, endless: Path
) -> None:
    monkeypatch.setattr("llama_cpp.llama_cpp.llama_vocab_bos", lambda vocab: -1)
    model = load_model(str(endless), LoadOptions(), lambda fraction: True)
    assert (model.vocab.bos, model.vocab.bos_text) == (None, "")
    model.close()


def test_more_tokens_than_bytes_are_found_too(
    vocab: Vocab, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some tokenizers write a character by others before they begin.
    tokenize, rooms = llama.llama_tokenize, []

    def cramped(handle: Any, text: bytes, size: int, tokens: Any, room: int, *more: bool) -> int:
        rooms.append(room)
        count: int = tokenize(handle, text, size, tokens, room, *more)
        return count if len(rooms) > 1 else -2 * room

    monkeypatch.setattr("llama_cpp.llama_cpp.llama_tokenize", cramped)
    assert len(vocab.tokenize("abc")) == 4
    assert rooms == [7, 14]


def test_a_long_piece_is_read_whole(load: Load, folder: Path) -> None:
    path = write_tiny_llama(folder / "long_piece.gguf", says=("x" * 1000, "y"))
    assert load(path).answer(prompt()) == "x" * 1000 + "y"
