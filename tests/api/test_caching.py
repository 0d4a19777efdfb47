"""What a request says about the cache, and what it is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.types import ChatTask, ContentDelta, ProgressDelta
from tests.support.asgi_driver import post
from tests.support.fake_router import FINISH, FakeRouter, ScriptItem

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], **more}


async def task_of(body: dict[str, Any], key: str = "", keys: tuple[str, ...] = ()) -> ChatTask:
    """Return the task that *body*, sent with *key*, becomes."""
    router = FakeRouter()
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    app = RouterAPI(router, api_settings(api_keys=keys))
    answer = await post(app, CHAT, body, headers=headers)
    assert answer.status == 200, answer.body
    task = router.leases[0].streams[0].task
    assert isinstance(task, ChatTask)
    return task


async def test_each_key_has_a_namespace_of_its_own() -> None:
    keys = ("one", "two")
    first, second, again = [
        (await task_of(chat(), key, keys)).cache_namespace for key in ("one", "two", "one")
    ]
    assert first == again != second
    assert "one" not in first


async def test_without_keys_all_share_one() -> None:
    assert (await task_of(chat(), "whatever")).cache_namespace == ""
    assert (await task_of(chat())).cache_namespace == ""


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"cache_prompt": True, "n_keep": 0, "n_discard": 0, "max_seconds": None}),
        ({"cache_prompt": False}, {"cache_prompt": False}),
        ({"n_keep": -1, "n_discard": 7}, {"n_keep": -1, "n_discard": 7}),
        ({"t_max_predict_ms": 1500}, {"max_seconds": 1.5}),
        ({"t_max_predict_ms": 0}, {"max_seconds": None}),
        ({"t_max_predict_ms": -1}, {"max_seconds": None}),
        ({"return_progress": True, "stream": True}, {"return_progress": True}),
        ({"return_progress": True}, {"return_progress": False}),
    ],
)
async def test_fields_reach_the_task(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    task = await task_of(chat(**fields))
    assert {name: getattr(task, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_keep", -2), ("n_discard", -1), ("t_max_predict_ms", -2), ("cache_prompt", "yes")],
)
async def test_bad_values_are_named(field: str, value: Any) -> None:
    answer = await post(RouterAPI(FakeRouter(), api_settings()), CHAT, chat(**{field: value}))
    assert answer.status == 400
    assert answer.json["error"]["param"] == field


async def test_progress_is_a_chunk_of_its_own() -> None:
    script: list[ScriptItem] = [ProgressDelta(100, 20, 60, 0.25), ContentDelta("Hi"), FINISH]
    app = RouterAPI(FakeRouter({"tiny": script}), api_settings())
    answer = await post(app, CHAT, chat(stream=True, return_progress=True))
    told = [chunk for chunk in answer.events[:-1] if "prompt_progress" in chunk]
    assert [chunk["prompt_progress"] for chunk in told] == [
        {"total": 100, "cache": 20, "processed": 60, "time_ms": 250}
    ]
    assert told[0]["choices"][0]["delta"] == {}
