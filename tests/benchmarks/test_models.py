"""The made-up models load in llama.cpp, speak, and read their own words as they said them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.models.dense import TINY_DENSE
from benchmarks.models.store import ModelStore
from benchmarks.models.vocabulary import byte_pair_vocabulary
from benchmarks.models.words import text
from llm_router_mw.engine.engine import Engine
from llm_router_mw.engine.model import load_model
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import (
    ChatTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    EmbedTask,
    FinishDelta,
    LoadOptions,
    Task,
)

FORMATS = {"template": "llm_router_mw.engine.chat_template:TemplateChatFormat"}
QUESTION = " baba bebe"


def answer(path: Path, task: Task, pooling: str = "") -> list[Delta]:
    """Return the deltas of *task*, and the engine's memory."""
    given: list[Delta] = []
    engine = Engine(lambda deltas: given.extend(delta for _, delta in deltas))
    try:
        engine.load(
            str(path),
            LoadOptions(n_ctx=512, n_threads=1, pooling="mean" if pooling else ""),
            FORMATS,
        )
        engine.submit(1, task, 100)
        while engine.step():
            pass
    finally:
        engine.close()
    return given


@contextmanager
def vocabulary_of(path: Path) -> Iterator[Vocab]:
    """Load the model in *path* for as long as its vocabulary is used."""
    model = load_model(str(path), LoadOptions(), lambda fraction: True)
    try:
        yield model.vocab
    finally:
        model.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    return ModelStore(tmp_path_factory.mktemp("models"), tiny=True)


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_a_model_speaks_until_it_is_cut_off_and_its_text_reads_back_as_its_tokens(
    store: ModelStore, kind: str
) -> None:
    n_tokens = 40
    task = ChatTask(messages=({"role": "user", "content": QUESTION},), max_tokens=n_tokens)

    *pieces, finish = answer(store.path(kind), task)

    assert isinstance(finish, FinishDelta)
    assert finish.reason == "length"
    assert finish.usage.completion_tokens == n_tokens
    said = "".join(piece.text for piece in pieces if isinstance(piece, ContentDelta))
    assert said.isascii()
    with vocabulary_of(store.path(kind)) as vocabulary:
        assert len(vocabulary.tokenize(said)) == n_tokens


def test_any_text_can_be_read(store: ModelStore) -> None:
    anything = 'Ab, {"x": 1}\n\tэй'
    with vocabulary_of(store.path("dense")) as vocabulary:
        tokens = vocabulary.tokenize(anything)
        assert b"".join(vocabulary.piece(token) for token in tokens) == anything.encode()


def test_the_encoder_embeds(store: ModelStore) -> None:
    *vectors, finish = answer(store.path("encoder"), EmbedTask(inputs=(QUESTION,)), pooling="mean")

    assert isinstance(finish, FinishDelta)
    assert [type(vector) for vector in vectors] == [EmbeddingDelta]


@pytest.mark.parametrize("size", [TINY_DENSE.n_vocab, 100_352, 151_936])
def test_a_vocabulary_has_as_many_different_tokens_as_asked_for(size: int) -> None:
    vocabulary = byte_pair_vocabulary(size)

    assert len(vocabulary.texts) == len(set(vocabulary.texts)) == size
    assert len(vocabulary.types) == len(vocabulary.silent) == size
    known = set(vocabulary.texts)
    assert all(set(merge.split(" ")) <= known for merge in vocabulary.merges)
    assert all(merge.replace(" ", "") in known for merge in vocabulary.merges)


def test_prompts_are_of_the_length_asked_for_in_the_real_vocabularies() -> None:
    known = set(byte_pair_vocabulary(100_352).texts)
    words = text(random.Random(1), 50).split(" ")

    assert words[0] == ""
    assert len(words) == 51
    assert {f"Ġ{word}" for word in words[1:]} <= known


def test_a_file_is_made_once(store: ModelStore) -> None:
    path = store.path("dense")
    made_at = path.stat().st_mtime_ns

    assert store.path("dense") == path
    assert path.stat().st_mtime_ns == made_at
    assert [each.suffix for each in path.parent.iterdir()].count(".unfinished") == 0
