"""Whatever a client sends is its own mistake or is answered; it is never a server error."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router_mw.api import RouterAPI, api_settings
from tests.support.asgi_driver import post
from tests.support.fake_router import FakeRouter

API = RouterAPI(FakeRouter(), api_settings(max_body_bytes=5000))
PATHS = st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
FIELDS = [
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "stop",
    "n",
    "tools",
    "logit_bias",
    "response_format",
    "json_schema",
    "grammar",
    "samplers",
    "logprobs",
    "top_logprobs",
    "n_probs",
    "repeat_penalty",
    "repeat_last_n",
    "dry_sequence_breakers",
    "mirostat",
    "encoding_format",
]
GOOD = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hi"}],
    "prompt": "Once",
    "input": "text",
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["tiny", "user", "text", "", "\x00"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "name", "function", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def status_of(path: str, body: Any) -> int:
    return anyio.run(post, API, path, body).status


@settings(max_examples=150, deadline=None)
@given(path=PATHS, body=st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_json_is_answered_or_refused(path: str, body: dict[str, Any]) -> None:
    assert status_of(path, GOOD | body) in (200, 400, 404, 413)


@settings(max_examples=150, deadline=None)
@given(path=PATHS, body=st.binary(max_size=40))
def test_any_bytes_are_refused(path: str, body: bytes) -> None:
    assert status_of(path, body) == 400


@settings(max_examples=100, deadline=None)
@given(path=PATHS, data=st.data())
def test_any_damage_to_a_good_body_is_answered_or_refused(path: str, data: Any) -> None:
    body = bytearray(msgspec.json.encode(GOOD))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert status_of(path, bytes(body)) in (200, 400, 404)
