"""Requests that would take much time or memory in the server's own process."""

from __future__ import annotations

from threading import current_thread, main_thread
from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.api.body import understand
from tests.support.asgi_driver import Client, post
from tests.support.fake_router import FakeRouter

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HI = {"role": "user", "content": "Hi"}
PART = {"type": "text", "text": "x"}
MOST = 4096


async def ask(path: str, router: FakeRouter | None = None, **more: Any) -> Client:
    field = {"messages": [HI]} if path == CHAT else {"prompt": "Once"}
    api = RouterAPI(router or FakeRouter(), api_settings())
    return await post(api, path, {"model": "tiny", **field, **more})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": [HI] * (MOST + 1)}, "messages"),
        (
            {"messages": [{"role": "user", "content": [PART] * (MOST + 1)}]},
            "messages[0].content",
        ),
        ({"stop": ["x"] * (MOST + 1)}, "stop"),
        ({"logit_bias": {str(token): 1 for token in range(MOST + 1)}}, "logit_bias"),
        ({"logit_bias": [[1, 1]] * (MOST + 1)}, "logit_bias"),
    ],
)
async def test_too_many_entries_are_refused_by_name(more: dict[str, Any], param: str) -> None:
    answer = await ask(CHAT, **more)
    assert answer.status == 400
    assert answer.error["param"].replace("[...]", "[0]") == param
    assert str(MOST) in answer.error["message"]


async def test_as_many_as_are_allowed_pass() -> None:
    messages = [{"role": "user", "content": [PART] * MOST}, *[HI] * (MOST - 1)]
    assert (await ask(CHAT, messages=messages)).status == 200


@pytest.mark.parametrize(("size", "aside"), [(256 * 1024, False), (256 * 1024 + 1, True)])
async def test_a_large_body_is_read_off_the_loop(size: int, aside: bool) -> None:
    thread = await understand(b"x" * size, lambda data: current_thread())
    assert (thread is not main_thread()) == aside


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [HI]}),
        (TEXT, {"prompt": "Once"}),
        ("/v1/embeddings", {"input": "Once"}),
        ("/v1/rerank", {"query": "Once", "documents": ["x"]}),
    ],
)
async def test_every_endpoint_does_so(
    path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr("llm_router_mw.api.body.anyio.to_thread.run_sync", _spy(seen))
    await post(RouterAPI(FakeRouter(), api_settings()), path, {**body, "more": "x" * 300_000})
    assert seen == [True]


def _spy(seen: list[bool]) -> Any:
    async def run_sync(function: Any, data: bytes) -> Any:
        seen.append(True)
        return function(data)

    return run_sync


@pytest.mark.parametrize(
    ("path", "more", "param"),
    [
        (CHAT, {"n_probs": 1024, "max_tokens": 244}, "n_probs"),
        (CHAT, {"n_probs": 500}, "n_probs"),
        (CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": 11_905}, "top_logprobs"),
        (CHAT, {"logprobs": True, "max_tokens": 125_001}, "logprobs"),
        (TEXT, {"logprobs": 20, "max_tokens": 11_905}, "logprobs"),
        (TEXT, {"n_probs": 1024, "max_tokens": 122, "n": 2}, "n_probs"),
    ],
)
async def test_a_whole_answer_of_too_many_probabilities_is_refused(
    path: str, more: dict[str, Any], param: str
) -> None:
    router = FakeRouter()
    answer = await ask(path, router, **more)
    assert answer.status == 400
    assert answer.error["param"] == param
    assert "stream it" in answer.error["message"]
    assert router.leases[0].released.is_set()
    assert router.leases[0].streams == []
    assert (await ask(path, **more, stream=True)).status == 200


@pytest.mark.parametrize(
    "more", [{"n_probs": 1024, "max_tokens": 243}, {"n_probs": 400}, {"max_tokens": 10**6}]
)
async def test_one_of_fewer_is_given(more: dict[str, Any]) -> None:
    assert (await ask(CHAT, **more)).status == 200
