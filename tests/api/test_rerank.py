"""Reranking, as clients of Jina's and of TEI's API see it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import NotSupportedError
from llm_router_mw.types import EmbeddingDelta, FinishDelta, RerankTask, Usage
from tests.support.asgi_driver import Client, post
from tests.support.fake_router import FakeRouter

pytestmark = pytest.mark.asyncio

SCORES = {2: 0.5, 0: -1.0, 1: 2.0}
"""By document; they come in this order."""
FINISH = FinishDelta(reason="stop", usage=Usage(prompt_tokens=9))
JINA = {"query": "q", "documents": ["a", "b", "c"]}
TEI = {"query": "q", "texts": ["a", "b", "c"]}


def reranker() -> FakeRouter:
    deltas = [EmbeddingDelta(index, struct.pack("<f", score)) for index, score in SCORES.items()]
    return FakeRouter({"tiny": [*deltas, FINISH]})


async def ask(router: FakeRouter, body: dict[str, Any], path: str = "/v1/rerank") -> Client:
    return await post(RouterAPI(router, api_settings()), path, {"model": "tiny", **body})


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/reranking"])
async def test_the_best_document_comes_first(path: str) -> None:
    router = reranker()
    answer = await ask(router, JINA, path)
    assert answer.status == 200
    assert answer.json == {
        "model": "tiny",
        "object": "list",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "results": [
            {"index": 1, "relevance_score": 2.0},
            {"index": 2, "relevance_score": 0.5},
            {"index": 0, "relevance_score": -1.0},
        ],
    }
    assert router.leases[0].streams[0].task == RerankTask(query="q", documents=("a", "b", "c"))
    assert router.leases[0].released.is_set()


async def test_with_texts_it_is_teis_shape() -> None:
    router = reranker()
    assert (await ask(router, TEI)).json == [
        {"index": 1, "score": 2.0},
        {"index": 2, "score": 0.5},
        {"index": 0, "score": -1.0},
    ]
    assert router.leases[0].streams[0].task == RerankTask(query="q", documents=("a", "b", "c"))


async def test_the_texts_are_given_back_on_request() -> None:
    jina = (await ask(reranker(), {**JINA, "return_documents": True})).json["results"]
    assert [item["document"] for item in jina] == [{"text": "b"}, {"text": "c"}, {"text": "a"}]
    tei = (await ask(reranker(), {**TEI, "return_text": True})).json
    assert [item["text"] for item in tei] == ["b", "c", "a"]


@pytest.mark.parametrize(("top_n", "kept"), [(1, 1), (2, 2), (3, 3), (99, 3)])
async def test_only_the_best_are_given_on_request(top_n: int, kept: int) -> None:
    jina = (await ask(reranker(), {**JINA, "top_n": top_n})).json["results"]
    assert [item["index"] for item in jina] == [1, 2, 0][:kept]
    assert len((await ask(reranker(), {**TEI, "top_n": top_n})).json) == kept


async def test_documents_may_be_objects() -> None:
    router = reranker()
    await ask(router, {"query": "q", "documents": [{"text": "a"}, "b", {"text": "c", "id": 7}]})
    assert router.leases[0].streams[0].task == RerankTask(query="q", documents=("a", "b", "c"))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"documents": ["a"], "query": ""}, "query"),
        ({"documents": ["a"], "query": ["q"]}, "query"),
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": "a"}, "documents"),
        ({"query": "q", "documents": ["a"] * 2049}, "documents"),
        ({"query": "q", "documents": ["a", 7]}, "documents[1]"),
        ({"query": "q", "documents": [{"title": "a"}]}, "documents[0]"),
        ({"query": "q", "texts": []}, "texts"),
        ({"query": "q", "texts": [{"text": "a"}]}, "texts[0]"),
        ({"query": "q", "texts": ["a"], "documents": ["a"]}, "texts"),
        ({**JINA, "top_n": 0}, "top_n"),
        ({**JINA, "top_n": -1}, "top_n"),
        ({**JINA, "top_n": "2"}, "top_n"),
        ({**JINA, "return_documents": "yes"}, "return_documents"),
        ({**JINA, "model": None}, "model"),
    ],
)
async def test_a_bad_field_is_a_400_that_names_it(body: dict[str, Any], param: str) -> None:
    answer = await ask(reranker(), body)
    assert answer.status == 400
    assert answer.error["param"] == param


async def test_a_model_that_is_no_reranker_refuses_as_llama_server_does() -> None:
    router = FakeRouter({"tiny": [NotSupportedError("this model does not support reranking")]})
    answer = await ask(router, JINA)
    assert answer.status == 501
    assert answer.error["type"] == "not_supported_error"
    assert router.leases[0].released.is_set()
