"""Probabilities of tokens in OpenAI's shapes."""

from __future__ import annotations

from math import log
from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import ContentDelta, TokenProb, TokenProbs
from tests.support.asgi_driver import post
from tests.support.fake_router import FINISH, FakeRouter, ScriptItem

pytestmark = pytest.mark.asyncio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "tiny", "prompt": "Once"}


def token(text: str, probability: float, *others: tuple[str, float]) -> TokenProbs:
    """Return a token and the likeliest ones in its place."""
    top = tuple(TokenProb(len(one), one, one.encode(), log(chance)) for one, chance in others)
    return TokenProbs(len(text), text, text.encode(), log(probability), top)


HEL = token("Hel", 0.5, ("Hel", 0.5), ("Yo", 0.25))
LO = token("lo", 0.25, ("p", 0.75), ("lo", 0.25))
SCRIPT: list[ScriptItem] = [
    ContentDelta("Hel", (HEL,)),
    ContentDelta("lo", (LO,)),
    ContentDelta("!"),
    FINISH,
]


def entry(text: str, probability: float, **more: Any) -> dict[str, Any]:
    return {
        "id": len(text),
        "token": text,
        "bytes": list(text.encode()),
        "logprob": pytest.approx(log(probability)),
        **more,
    }


HEL_ENTRY = entry("Hel", 0.5, top_logprobs=[entry("Hel", 0.5), entry("Yo", 0.25)])
LO_ENTRY = entry("lo", 0.25, top_logprobs=[entry("p", 0.75), entry("lo", 0.25)])


async def choices(path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choice of the answer, or of each event of a streamed one."""
    router = FakeRouter({"tiny": SCRIPT})
    answer = await post(RouterAPI(router, api_settings()), f"/v1/{path}", body)
    assert answer.status == 200
    if not body.get("stream"):
        return list(answer.json["choices"])
    return [event["choices"][0] for event in answer.events[:-1]]


async def test_a_chat_tells_them_as_content() -> None:
    (choice,) = await choices("chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2})
    assert choice["logprobs"] == {"content": [HEL_ENTRY, LO_ENTRY]}


async def test_a_streamed_chat_tells_them_with_the_text_that_they_make() -> None:
    body = CHAT | {"logprobs": True, "top_logprobs": 2, "stream": True}
    _, *pieces = await choices("chat/completions", body)
    assert [piece["delta"].get("content") for piece in pieces] == ["Hel", "lo", "!", None]
    assert [piece.get("logprobs") for piece in pieces] == [
        {"content": [HEL_ENTRY]},
        {"content": [LO_ENTRY]},
        None,
        None,
    ]


async def test_without_a_number_there_are_the_chosen_tokens_alone() -> None:
    (choice,) = await choices("chat/completions", CHAT | {"logprobs": True})
    assert [one["top_logprobs"] for one in choice["logprobs"]["content"]] == [[], []]


async def test_a_completion_tells_them_in_columns() -> None:
    (choice,) = await choices("completions", TEXT | {"logprobs": 1})
    content = choice["logprobs"].pop("content")
    assert [one["token"] for one in content] == ["Hel", "lo"]
    assert choice["logprobs"] == {
        "tokens": ["Hel", "lo"],
        "token_logprobs": pytest.approx([log(0.5), log(0.25)]),
        "top_logprobs": [{"Hel": pytest.approx(log(0.5))}, {"p": pytest.approx(log(0.75))}],
        "text_offset": [0, 3],
    }


async def test_a_streamed_completion_counts_the_text_on() -> None:
    pieces = await choices("completions", TEXT | {"logprobs": 1, "stream": True})
    assert [piece["text"] for piece in pieces] == ["Hel", "lo", "!", ""]
    told = [piece["logprobs"] for piece in pieces]
    assert [one and one["text_offset"] for one in told] == [[0], [3], None, None]


async def test_llama_servers_own_field_asks_for_them_too() -> None:
    (choice,) = await choices("chat/completions", CHAT | {"n_probs": 2})
    assert choice["logprobs"] == {"content": [HEL_ENTRY, LO_ENTRY]}


async def test_probabilities_after_the_samplers_are_told_as_such() -> None:
    body = CHAT | {"n_probs": 1, "post_sampling_probs": True}
    (choice,) = await choices("chat/completions", body)
    first = choice["logprobs"]["content"][0]
    assert first["prob"] == pytest.approx(0.5)
    assert first["top_probs"][0]["prob"] == pytest.approx(0.5)
    assert "logprob" not in first


async def test_nobody_who_did_not_ask_is_told() -> None:
    (choice,) = await choices("chat/completions", CHAT)
    assert choice["logprobs"] is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"json_schema": {"type": "x"}}, "json_schema"),
        ({"response_format": {"type": "json_object", "schema": {"not": {}}}}, "response_format"),
        ({"grammar": "x"}, "grammar"),
    ],
)
async def test_what_the_worker_refuses_is_named_as_the_client_wrote_it(
    fields: dict[str, Any], param: str, stream: bool
) -> None:
    field = "grammar" if param == "grammar" else "json_schema"
    refusal = InvalidRequestError(f"Field '{field}': no", param=field)
    router = FakeRouter({"tiny": [refusal]})
    answer = await post(
        RouterAPI(router, api_settings()),
        "/v1/chat/completions",
        CHAT | fields | {"stream": stream},
    )
    assert answer.status == 400
    assert answer.error["param"] == param
    assert answer.error["message"] == f"Field '{param}': no"
