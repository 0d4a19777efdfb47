"""Rerankers, embedders, adapters and several answers at once, through a real server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.served import Served, served
from tests.support.tiny_lora import write_tiny_lora
from tests.support.tiny_models import write_tiny_bert, write_tiny_llama

N_PARALLEL = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("kinds")
    talker = write_tiny_llama(folder / "talker.gguf")
    ranker = write_tiny_bert(folder / "ranker.gguf", ranks=True)
    adapters = [write_tiny_lora(folder / f"{word}.gguf", word) for word in ("the", "you")]
    models: dict[str, Any] = {
        "talker": talker,
        "adapted": {"path": talker, "lora": [adapters[0], {"path": adapters[1], "scale": 0}]},
        "ranker": {"path": ranker, "pooling": "rank", "n_ctx": 512},
        "embedder": {"path": ranker, "pooling": "mean", "n_ctx": 512},
    }
    with served(models=models, models_max=4, n_parallel=N_PARALLEL) as running:
        yield running


def complete(server: Served, **fields: Any) -> dict[str, Any]:
    body = {"model": "talker", "prompt": "Once upon a time", "max_tokens": 8} | fields
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def test_seeds_of_choices_follow_each_other(server: Served) -> None:
    wild = {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    together = complete(server, n=3, seed=5, **wild)
    alone = [texts(complete(server, seed=5 + number, **wild))[0] for number in range(3)]
    assert len(set(alone)) == 3
    assert texts(together) == alone


def test_the_prompt_of_choices_is_counted_once(server: Served) -> None:
    one, many = complete(server), complete(server, n=N_PARALLEL)
    assert many["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert many["usage"]["completion_tokens"] == 8 * N_PARALLEL


def test_the_official_client_streams_choices(server: Served) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        stream = client.completions.create(
            model="talker", prompt="Once", n=2, max_tokens=5, temperature=0, stream=True
        )
        found = ["", ""]
        for chunk in stream:
            for choice in chunk.choices:
                found[choice.index] += choice.text
    assert found[0] == found[1] != ""


def test_more_choices_than_the_model_answers_at_once_are_refused(server: Served) -> None:
    body = {"model": "talker", "prompt": "Once", "n": N_PARALLEL + 1}
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "n"


def test_documents_are_ranked(server: Served) -> None:
    body = {"model": "ranker", "query": "the", "documents": ["an", "in", "on"], "top_n": 2}
    results = server.http.post("/v1/rerank", json=body).json()["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert len({result["index"] for result in results}) == 2


@pytest.mark.parametrize("model", ["talker", "embedder"])
def test_other_models_do_not_rank(server: Served, model: str) -> None:
    body = {"model": model, "query": "the", "documents": ["an"]}
    answer = server.http.post("/v1/rerank", json=body)
    assert answer.status_code == 501
    assert answer.json()["error"]["type"] == "not_supported_error"


def test_vectors_are_cut_short(server: Served) -> None:
    body = {"model": "embedder", "input": "the", "dimensions": 4}
    [item] = server.http.post("/v1/embeddings", json=body).json()["data"]
    assert len(item["embedding"]) == 4
    assert math.hypot(*item["embedding"]) == pytest.approx(1, abs=1e-5)
    answer = server.http.post("/v1/embeddings", json=body | {"dimensions": 4096})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "dimensions"


def test_requests_choose_adapters(server: Served) -> None:
    wishes: list[Any] = [None, [{"id": 1, "scale": 1}], []]
    said = [texts(complete(server, model="adapted", temperature=0, lora=wish)) for wish in wishes]
    plain = texts(complete(server, temperature=0))
    assert said == [["the" * 8], ["you" * 8], plain]


def test_an_adapter_that_is_not_there_is_named(server: Served) -> None:
    body = {"model": "talker", "prompt": "Once", "lora": [{"id": 0, "scale": 1}]}
    answer = server.http.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "lora"


def test_a_missing_adapter_is_said_when_the_model_is_asked_for(tmp_path: Path) -> None:
    model = write_tiny_llama(tmp_path / "model.gguf")
    models = {"model": {"path": model, "lora": [tmp_path / "gone.gguf"]}}
    with served(models=models) as server:
        answer = server.http.post("/v1/completions", json={"model": "model", "prompt": "Once"})
    assert answer.status_code == 422
    assert "'gone.gguf' does not exist" in answer.json()["error"]["message"]
    assert str(tmp_path) not in answer.text
