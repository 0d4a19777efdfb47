"""Asking a server over HTTP as its clients do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

ANSWER_SECONDS = 40.0


def client(base_url: str, **options: Any) -> httpx.Client:
    """Return a client that talks to *base_url* directly, whatever proxies there are."""
    return httpx.Client(base_url=base_url, timeout=ANSWER_SECONDS, trust_env=False, **options)


def chat_body(model: str, **fields: Any) -> dict[str, Any]:
    """Return a short, repeatable question to *model*."""
    messages = [{"role": "user", "content": "What is a lease?"}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 24} | fields


def ask(http: httpx.Client, model: str, **fields: Any) -> str:
    """Return the text of one whole answer."""
    response = http.post("/v1/chat/completions", json=chat_body(model, **fields))
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def data_lines(response: httpx.Response) -> Iterator[str]:
    """Yield the lines of a stream that carry data; others are empty, or comments on a wait."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield line


def ask_streamed(http: httpx.Client, model: str, **fields: Any) -> list[str]:
    """Return the pieces of one streamed answer, which has to end as it should."""
    body = chat_body(model, stream=True, **fields)
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        data = [line.removeprefix("data: ") for line in data_lines(response)]
    assert data.pop() == "[DONE]"
    deltas = [json.loads(each)["choices"][0]["delta"] for each in data]
    return [text for delta in deltas if (text := delta.get("content"))]


def model_ids(http: httpx.Client) -> set[str]:
    """Return the ids that the server lists."""
    return {model["id"] for model in http.get("/v1/models").json()["data"]}
