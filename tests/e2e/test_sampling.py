"""Sampler settings all the way: OpenAI's own client, a real server and a real worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_router_mw import Router
from tests.support.answers import chat_body
from tests.support.json_schema import is_valid
from tests.support.served import Served, served

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "person", "strict": True, "schema": SCHEMA},
}
MESSAGES: Any = [{"role": "user", "content": "Who?"}]


@pytest.fixture(scope="module")
def server(models_dir: Path) -> Iterator[Served]:
    with served(models_dir=models_dir) as running:
        yield running


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_is_valid_by_its_schema(client: openai.OpenAI, seed: int) -> None:
    answer = client.chat.completions.create(
        model="a", messages=MESSAGES, response_format=FORMAT, seed=seed, temperature=1.5
    )
    assert answer.choices[0].finish_reason == "stop"
    assert is_valid(json.loads(answer.choices[0].message.content or ""), SCHEMA)


def test_logprobs_are_what_openais_client_expects(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="a", messages=MESSAGES, max_tokens=4, logprobs=True, top_logprobs=3
    )
    found = chat.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert len(found.content) == 4
    assert "".join(token.token for token in found.content) == chat.choices[0].message.content
    assert all(len(token.top_logprobs) == 3 for token in found.content)

    text = client.completions.create(model="a", prompt="Once", max_tokens=4, logprobs=2)
    columns = text.choices[0].logprobs
    assert columns is not None
    assert "".join(columns.tokens or []) == text.choices[0].text
    assert len(columns.token_logprobs or []) == len(columns.text_offset or []) == 4


def test_streamed_logprobs_cover_the_text(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="a", messages=MESSAGES, max_tokens=9, logprobs=True, stream=True, stop=["xyzzy"]
    )
    text, tokens = "", ""
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        logprobs = chunk.choices[0].logprobs
        tokens += "".join(token.token for token in (logprobs and logprobs.content) or [])
    assert text
    assert tokens == text


def test_a_seed_gives_the_same_answer_again(client: openai.OpenAI) -> None:
    answers = {
        client.completions.create(model="a", prompt="Once", max_tokens=20, temperature=1.5, seed=7)
        .choices[0]
        .text
        for _ in range(2)
    }
    assert len(answers) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"grammar": 'root ::= "a'}, "grammar"),
        ({"json_schema": {"not": {}}}, "json_schema"),
        ({"response_format": {"type": "json_object", "schema": {"type": "x"}}}, "response_format"),
        ({"json_schema": {"type": "string", "pattern": "^(a+)+{9,8}$"}}, "json_schema"),
        ({"json_schema": {"description": "x" * 1_000_000}}, "json_schema"),
        ({"logit_bias": {"word " * 5000: 1}}, "logit_bias"),
        ({"top_p": 1.1}, "top_p"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    server: Served, fields: dict[str, Any], param: str, stream: bool
) -> None:
    body = chat_body("a", stream=stream, **fields)
    answer = server.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def _complete(models_dir: Path) -> str:
    async with (
        Router(models_dir=models_dir, n_threads=1, n_ctx=512) as router,
        router.acquire("a") as llm,
    ):
        reply = await llm.complete("Once", json_schema=SCHEMA, logit_bias=[("}", 3.0)])
        return reply.text


@pytest.mark.asyncio
async def test_the_apps_own_code_uses_the_same_names(models_dir: Path) -> None:
    assert is_valid(json.loads(await _complete(models_dir)), SCHEMA)
