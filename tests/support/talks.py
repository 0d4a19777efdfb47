"""Streamed answers that a test begins to read, and goes on with when it likes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.answers import chat_body, data_lines


class Talk:
    """A streamed answer that has begun."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = data_lines(response)
        self._read = [next(self._lines)]

    def rest(self) -> list[str]:
        """Return the data of all events, to the end."""
        self._read += self._lines
        return [line.removeprefix("data: ") for line in self._read]

    def text(self) -> str:
        """Return all of the text; the answer has to end as it should."""
        *data, end = self.rest()
        assert end == "[DONE]", end
        deltas = (json.loads(each)["choices"][0]["delta"] for each in data)
        return "".join(delta.get("content") or "" for delta in deltas)

    def error(self) -> dict[str, Any]:
        """Return the error with which it has to end."""
        error: dict[str, Any] = json.loads(self.rest()[-1])["error"]
        return error


@contextmanager
def talking(http: httpx.Client, model: str, tokens: int) -> Iterator[Talk]:
    """Let *model* begin an answer of so many *tokens*; who leaves early hangs up."""
    body = chat_body(model, max_tokens=tokens, stream=True)
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        talk = Talk(response)  # must live: when its lines are collected, httpx hangs up
        yield talk
