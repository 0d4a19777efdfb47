"""Scores of documents for a query."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from llm_router_mw.errors import (
    InvalidRequestError,
    LLMRouterError,
    NotSupportedError,
    error_from,
)
from llm_router_mw.types import EmbedTask, RerankTask, Task
from tests.engine.conftest import Load
from tests.engine.driver import Driver
from tests.support.tiny_architectures import write_tiny
from tests.support.tiny_models import BOS, IM_END, IM_START, write_tiny_bert

QUERY = "what is it"
DOCUMENTS = ("the fox", "it is in the", "a", "and to you of the ing", "on 123")
CLS, SEP = 2, 3
TEMPLATE = "<|im_start|>{query}|{document}<|im_end|>"


@pytest.fixture(scope="session")
def ranker(folder: Path) -> Path:
    return write_tiny_bert(folder / "ranker.gguf", ranks=True)


@pytest.fixture(scope="session")
def templated(folder: Path) -> Path:
    return write_tiny(folder / "templated.gguf", "qwen3", rank_template=TEMPLATE)


def run(driver: Driver, task: Task) -> list[tuple[float, ...]]:
    """Return the vectors that *task* gives, in the order of its inputs."""
    request = driver.submit(task)
    driver.run()
    assert driver.finish(request).reason == "stop"
    found = driver.vectors(request)
    assert [delta.index for delta in found] == list(range(len(found)))
    return [struct.unpack(f"<{len(delta.vector) // 4}f", delta.vector) for delta in found]


def scores(driver: Driver, *documents: str, query: str = QUERY) -> list[float]:
    found = run(driver, RerankTask(query=query, documents=documents))
    assert {len(vector) for vector in found} == {1}
    return [vector[0] for vector in found]


def score_of_tokens(driver: Driver, tokens: list[int]) -> float:
    """Return what the model's head says about exactly these tokens."""
    [vector] = run(driver, EmbedTask(inputs=(tuple(tokens),)))
    return vector[0]


def refusal(driver: Driver, task: Task) -> LLMRouterError:
    request = driver.submit(task)
    driver.run()
    return error_from(driver.failure(request))


def tokens_of(driver: Driver, text: str, *, parse: bool = False) -> list[int]:
    assert driver.engine._model is not None
    return driver.engine._model.vocab.tokenize(text, add=False, parse=parse)


def test_each_document_gets_a_score_of_its_own(load: Load, ranker: Path) -> None:
    driver = load(ranker, pooling="rank")
    together = scores(driver, *DOCUMENTS)
    assert len(set(together)) == len(DOCUMENTS)
    for document, score in zip(DOCUMENTS, together, strict=True):
        assert scores(driver, document) == [pytest.approx(score, abs=1e-5)]


def test_the_query_counts(load: Load, ranker: Path) -> None:
    driver = load(ranker, pooling="rank")
    assert scores(driver, *DOCUMENTS) != scores(driver, *DOCUMENTS, query="who")


def test_a_pair_is_parted_by_the_tokenizers_own_marks(load: Load, ranker: Path) -> None:
    driver = load(ranker, pooling="rank")
    pair = [CLS, *tokens_of(driver, QUERY), SEP, *tokens_of(driver, "the fox")]
    assert scores(driver, "the fox") == [pytest.approx(score_of_tokens(driver, pair), abs=1e-6)]


def test_marks_inside_a_document_are_text(load: Load, ranker: Path) -> None:
    driver = load(ranker, pooling="rank")
    pair = [CLS, *tokens_of(driver, QUERY), SEP, *tokens_of(driver, "a [SEP] b")]
    assert pair.count(SEP) == 1
    [score] = scores(driver, "a [SEP] b")
    assert score == pytest.approx(score_of_tokens(driver, pair), abs=1e-6)


def test_ends_are_marked_where_the_tokenizer_wants_it(
    load: Load, ranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_cpp.llama_cpp.llama_vocab_get_add_eos", lambda vocab: True)
    monkeypatch.setattr("llama_cpp.llama_cpp.llama_vocab_eos", lambda vocab: -1)
    driver = load(ranker, pooling="rank")
    pair = [CLS, *tokens_of(driver, QUERY), SEP, SEP, *tokens_of(driver, "the fox"), SEP]
    assert scores(driver, "the fox") == [pytest.approx(score_of_tokens(driver, pair), abs=1e-6)]


def test_a_template_in_the_file_writes_the_pair(load: Load, templated: Path) -> None:
    driver = load(templated, pooling="rank")
    [score] = scores(driver, "to {query}", query="is {document}")
    written = tokens_of(driver, "is {document}|to {query}")
    pair = [IM_START, *written, IM_END]
    assert score == pytest.approx(score_of_tokens(driver, pair), abs=1e-6)
    assert 0 < score < 1, "qwen3's head says how likely a yes is"


def test_without_a_template_a_generating_model_gets_its_beginning_only(
    load: Load, folder: Path
) -> None:
    path = write_tiny(folder / "untemplated.gguf", "qwen3", rank_template="")
    driver = load(path, pooling="rank")
    pair = [BOS, *tokens_of(driver, "is"), *tokens_of(driver, "it")]
    [score] = scores(driver, "it", query="is")
    assert score == pytest.approx(score_of_tokens(driver, pair), abs=1e-6)


def test_documents_share_batches_and_usage_counts_all(load: Load, ranker: Path) -> None:
    driver = load(ranker, pooling="rank", n_parallel=4)
    request = driver.submit(RerankTask(query="a", documents=("b", "c d", "e", "f", "g")))
    driver.run()
    assert len(driver.rows) == 2
    assert driver.finish(request).usage.prompt_tokens == sum(driver.rows) == 5 * 3 + 6


@pytest.mark.parametrize(
    ("task", "param", "words"),
    [
        (RerankTask(query="a", documents=()), "documents", "at least one"),
        (RerankTask(query="a", documents=("b", "c " * 40)), "documents", "document 1 with the"),
        (RerankTask(query="a", documents=("b", "\ud800")), "documents", "whole characters"),
        (RerankTask(query="\ud800", documents=("b",)), "query", "whole characters"),
    ],
)
def test_what_cannot_be_scored_is_named(
    load: Load, ranker: Path, task: RerankTask, param: str, words: str
) -> None:
    error = refusal(load(ranker, pooling="rank", n_batch=32), task)
    assert isinstance(error, InvalidRequestError)
    assert error.param == param
    assert words in error.message


@pytest.mark.parametrize(("model", "pooling"), [("encoder", "mean"), ("endless", "")])
def test_an_instance_of_another_kind_refuses(
    request: pytest.FixtureRequest, load: Load, model: str, pooling: str
) -> None:
    driver = load(request.getfixturevalue(model), pooling=pooling)
    error = refusal(driver, RerankTask(query="a", documents=("b",)))
    assert isinstance(error, NotSupportedError)
    assert "load option pooling to 'rank'" in error.message
