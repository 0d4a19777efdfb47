from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import NotSupportedError
from llm_router_mw.types import EmbeddingDelta, EmbedTask, FinishDelta, Usage
from tests.support.asgi_driver import Client, post
from tests.support.fake_router import FakeRouter

pytestmark = pytest.mark.asyncio

FIRST, SECOND = struct.pack("<2f", 0.5, -1.0), struct.pack("<2f", 0.25, 2.0)
FINISH = FinishDelta(reason="stop", usage=Usage(prompt_tokens=6))


def embedder() -> FakeRouter:
    # Vectors may come out of order: short inputs are done first.
    return FakeRouter({"tiny": [EmbeddingDelta(1, SECOND), EmbeddingDelta(0, FIRST), FINISH]})


async def embed(router: FakeRouter, **body: Any) -> Client:
    return await post(
        RouterAPI(router, api_settings()), "/v1/embeddings", {"model": "tiny", **body}
    )


async def test_vectors_come_in_the_order_of_the_inputs() -> None:
    router = embedder()
    answer = await embed(router, input=["a", "b"])
    assert answer.status == 200
    assert answer.json == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]},
            {"object": "embedding", "index": 1, "embedding": [0.25, 2.0]},
        ],
        "model": "tiny",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    }
    assert router.leases[0].streams[0].task == EmbedTask(inputs=("a", "b"))
    assert router.leases[0].released.is_set()


async def test_vectors_may_be_asked_for_as_base64() -> None:
    answer = await embed(embedder(), input=["a", "b"], encoding_format="base64")
    vectors = [base64.b64decode(item["embedding"]) for item in answer.json["data"]]
    assert vectors == [FIRST, SECOND]


async def test_fewer_dimensions_may_be_asked_for() -> None:
    router = embedder()
    assert (await embed(router, input=["a", "b"], dimensions=2)).status == 200
    assert router.leases[0].streams[0].task == EmbedTask(inputs=("a", "b"), dimensions=2)


async def test_one_text_and_tokens_are_inputs_too() -> None:
    router = embedder()
    for given, inputs in (("a", ("a",)), ([1, 2], ((1, 2),)), ([[1], "b"], ((1,), "b"))):
        await embed(router, input=given)
        assert router.leases[-1].streams[0].task == EmbedTask(inputs=inputs)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": ["a"], "encoding_format": "hex"}, "encoding_format"),
        ({"input": ["a"], "dimensions": 0}, "dimensions"),
        ({"input": ["a"], "dimensions": 2**40}, "dimensions"),
        ({"input": ["a"], "dimensions": 1.5}, "dimensions"),
        ({"input": ["a"], "model": None}, "model"),
    ],
)
async def test_a_bad_field_is_a_400_that_names_it(body: dict[str, Any], param: str) -> None:
    answer = await embed(embedder(), **body)
    assert answer.status == 400
    assert answer.error["param"] == param


async def test_a_model_that_generates_refuses_as_llama_server_does() -> None:
    router = FakeRouter({"tiny": [NotSupportedError("this model makes no embeddings")]})
    answer = await embed(router, input="a")
    assert answer.status == 501
    assert answer.error["type"] == "not_supported_error"
    assert router.leases[0].released.is_set()
