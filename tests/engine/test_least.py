"""What never fits is refused before it is tokenised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llm_router_mw.engine.model import load_model
from llm_router_mw.engine.native import llama
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import ChatTask, EmbedTask, LoadOptions, RerankTask, Task
from tests.engine.conftest import Load
from tests.engine.driver import prompt
from tests.support.tiny_models import write_tiny_llama

PARTS = ("<s>", "</s>", "<|im_start|>", "<s", ">", "the ", "   ", "\n", "ä€🦙", "▁▁", "\0", "x" * 9)
MANY = "<s>" * 100_000
LONG = "x" * 1_000_000


@pytest.fixture
def vocab(endless: Path) -> Iterator[Vocab]:
    model = load_model(str(endless), LoadOptions(), lambda fraction: True)
    yield model.vocab
    model.close()


@pytest.fixture
def untokenized(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make sure from now on that no text is tokenised; a single space may be, to see if it can."""

    def begin() -> None:
        def tokenize(vocab: Any, text: bytes, *_: Any) -> int:
            assert text == b" ", "it has been tokenised"
            return 1

        monkeypatch.setattr("llama_cpp.llama_cpp.llama_tokenize", tokenize)

    return begin


@pytest.mark.parametrize("parse", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_the_bound_is_never_above_the_truth(vocab: Vocab, seed: int, parse: bool) -> None:
    text = "".join(Random(seed).choices(PARTS, k=60))
    least = vocab.least_tokens(text, 0, parse=parse)
    assert 0 < least <= len(vocab.tokenize(text, add=False, parse=parse))


def test_special_tokens_are_counted_once_each(vocab: Vocab) -> None:
    assert vocab.least_tokens("<s>" * 50 + "<|im_end|>" * 7, 56) == 57


def test_a_text_of_fewer_bytes_than_tokens_that_fit_is_not_looked_at(vocab: Vocab) -> None:
    assert vocab.least_tokens("<s>" * 50, 150) == 0
    assert vocab.least_tokens("<s>" * 50, 50) == 0
    assert vocab.least_tokens("<s>" * 50, 49) == 50


def test_half_a_surrogate_pair_is_left_for_later(vocab: Vocab) -> None:
    assert vocab.least_tokens("\ud83d", 2) == 0


@pytest.mark.parametrize(
    ("function", "answer"),
    [("llama_vocab_type", llama.LLAMA_VOCAB_TYPE_WPM), ("llama_tokenize", 0)],
)
def test_where_text_may_vanish_only_special_tokens_count(
    endless: Path, monkeypatch: pytest.MonkeyPatch, function: str, answer: int
) -> None:
    monkeypatch.setattr(f"llama_cpp.llama_cpp.{function}", lambda *_: answer)
    model = load_model(str(endless), LoadOptions(), lambda fraction: True)
    assert model.vocab.least_tokens("x" * 1000 + "<s>", 0) == 1
    model.close()


def test_spaces_that_special_tokens_swallow_do_not_count(
    endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attribute = llama.llama_vocab_get_attr

    def stripping(vocab: Any, token: int) -> int:
        return int(attribute(vocab, token) | llama.LLAMA_TOKEN_ATTR_RSTRIP)

    monkeypatch.setattr("llama_cpp.llama_cpp.llama_vocab_get_attr", stripping)
    model = load_model(str(endless), LoadOptions(), lambda fraction: True)
    assert model.vocab.least_tokens("<s>" + " " * 1000, 0) == 1
    model.close()


@pytest.mark.parametrize("text", [MANY, LONG])
@pytest.mark.parametrize("kind", ["prompt", "chat"])
def test_a_prompt_that_never_fits_is_refused(
    load: Load, endless: Path, untokenized: Any, text: str, kind: str
) -> None:
    driver = load(endless)
    untokenized()
    chat = ChatTask(messages=({"role": "user", "content": text},))
    request = driver.submit(prompt(text) if kind == "prompt" else chat)
    driver.run()
    failure = driver.failure(request)
    assert failure.kind == "ContextExceededError"
    assert f"(at least {failure.fields['n_prompt_tokens']} tokens)" in failure.message
    assert failure.fields["n_prompt_tokens"] >= 512
    assert failure.fields["n_ctx"] == 512


@pytest.mark.parametrize(
    ("pooling", "task", "param"),
    [
        ("mean", EmbedTask(inputs=(MANY,)), "input"),
        ("mean", EmbedTask(inputs=(LONG,)), "input"),
        ("rank", RerankTask(query=LONG, documents=("a",)), "query"),
        ("rank", RerankTask(query="a", documents=(LONG,)), "documents"),
    ],
)
def test_so_is_an_input_that_never_fits_a_batch(
    load: Load, folder: Path, untokenized: Any, pooling: str, task: Task, param: str
) -> None:
    driver = load(write_tiny_llama(folder / "vectors.gguf"), pooling=pooling)
    untokenized()
    request = driver.submit(task)
    driver.run()
    failure = driver.failure(request)
    assert failure.kind == "InvalidRequestError"
    assert failure.fields["param"] == param
    assert "has at least" in failure.message
