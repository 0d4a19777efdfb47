"""The management routes."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.api.admin import event_bodies
from llm_router_mw.types import InstanceState, RouterEvent, StoredSnapshot
from tests.support.asgi_driver import Client, get, http_scope, post
from tests.support.fake_router import FakeRouter, for_ever, view

pytestmark = pytest.mark.asyncio

KEY = [(b"x-api-key", b"boss")]


def api(router: FakeRouter, **settings: Any) -> RouterAPI:
    settings = {"routes": ("inference", "management"), "admin_keys": "boss"} | settings
    return RouterAPI(router, api_settings(**settings))


@pytest.mark.parametrize("path", ["/health", "/v1/health"])
async def test_health_needs_no_key(path: str) -> None:
    answer = await get(api(FakeRouter(), api_keys="user"), path)
    assert (answer.status, answer.json) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/models"),
        ("POST", "/models/load"),
        ("POST", "/models/unload"),
        ("POST", "/models/sleep"),
        ("POST", "/models/wake"),
        ("GET", "/models/cache"),
        ("POST", "/models/cache/purge"),
        ("GET", "/models/sse"),
    ],
)
async def test_everything_else_needs_the_admin_key(method: str, path: str) -> None:
    router = FakeRouter()
    answer = await get(api(router), path, method)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert router.calls == []


async def test_the_list_tells_more_than_the_public_one() -> None:
    detailed = await get(api(FakeRouter()), "/models", headers=KEY)
    assert detailed.json["data"][0]["path"] == "/models/tiny.gguf"
    public = await get(api(FakeRouter()), "/v1/models")
    assert "path" not in public.json["data"][0]


async def test_a_load_is_asked_for_and_not_waited_for() -> None:
    router = FakeRouter()
    answer = await post(api(router), "/models/load", {"model": "tiny"}, headers=KEY)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert router.calls == [("load", "tiny", False)]


@pytest.mark.parametrize(("drains", "status"), [(False, 200), (True, 202)])
async def test_unloading_a_busy_model_is_accepted_and_takes_time(drains: bool, status: int) -> None:
    router = FakeRouter()
    router.drains = drains
    answer = await post(api(router), "/models/unload", {"model": "tiny"}, headers=KEY)
    assert (answer.status, answer.json) == (status, {"success": True})
    assert router.calls == [("unload", "tiny", False, False)]


async def test_unloading_may_be_forced() -> None:
    router = FakeRouter()
    await post(api(router), "/models/unload", {"model": "tiny", "force": True}, headers=KEY)
    assert router.calls == [("unload", "tiny", True, False)]


@pytest.mark.parametrize(
    "path", ["/models/load", "/models/unload", "/models/sleep", "/models/wake"]
)
@pytest.mark.parametrize(
    ("body", "status"), [({"model": "other"}, 404), ({}, 400), ({"model": 1}, 400), (b"{", 400)]
)
async def test_a_bad_request_is_refused(path: str, body: Any, status: int) -> None:
    assert (await post(api(FakeRouter()), path, body, headers=KEY)).status == status


@pytest.mark.parametrize(("drains", "status"), [(False, 200), (True, 202)])
async def test_putting_a_busy_model_to_sleep_is_accepted_and_takes_time(
    drains: bool, status: int
) -> None:
    router = FakeRouter()
    router.drains = drains
    answer = await post(api(router), "/models/sleep", {"model": "tiny"}, headers=KEY)
    assert (answer.status, answer.json) == (status, {"success": True})
    assert router.calls == [("sleep", "tiny", "full", False)]


async def test_sleep_may_free_the_context_alone() -> None:
    router = FakeRouter()
    body = {"model": "tiny", "level": "context"}
    await post(api(router), "/models/sleep", body, headers=KEY)
    assert router.calls == [("sleep", "tiny", "context", False)]


async def test_saved_conversations_are_listed_without_what_was_said() -> None:
    router = FakeRouter()
    router.saved = (
        StoredSnapshot(
            model="tiny.gguf",
            n_tokens=5,
            size_bytes=7,
            tier="ram",
            created_at=1.0,
            used_at=2.0,
        ),
    )
    answer = await get(api(router), "/models/cache", headers=KEY)
    expected = {"model": "tiny.gguf", "n_tokens": 5, "size_bytes": 7, "tier": "ram"}
    assert answer.json == {"data": [expected | {"created_at": 1.0, "used_at": 2.0}]}


@pytest.mark.parametrize(("body", "model"), [(None, None), ({}, None), ({"model": "tiny"}, "tiny")])
async def test_saved_conversations_are_removed_of_all_models_or_of_one(
    body: dict[str, str] | None, model: str | None
) -> None:
    router = FakeRouter()
    content = b"" if body is None else body
    answer = await post(api(router), "/models/cache/purge", content, headers=KEY)
    assert answer.json == {"success": True, "snapshots": 2, "size_bytes": 3000}
    assert router.calls == [("purge_cache", model)]


async def test_the_conversations_of_an_unknown_model_cannot_be_removed() -> None:
    body = {"model": "huge"}
    answer = await post(api(FakeRouter()), "/models/cache/purge", body, headers=KEY)
    assert answer.status == 404


async def test_there_are_no_other_levels() -> None:
    body = {"model": "tiny", "level": "deep"}
    answer = await post(api(FakeRouter()), "/models/sleep", body, headers=KEY)
    assert (answer.status, answer.error["param"]) == (400, "level")


async def test_a_wake_is_asked_for_and_not_waited_for() -> None:
    router = FakeRouter()
    answer = await post(api(router), "/models/wake", {"model": "tiny"}, headers=KEY)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert router.calls == [("wake", "tiny", False)]


async def test_events_begin_with_a_snapshot_and_go_on_until_the_client_leaves() -> None:
    router = FakeRouter()
    router.script_of_events = [
        RouterEvent(
            kind="status",
            model="tiny",
            at_seconds=1.0,
            state=InstanceState.LOADED,
            reason="a request",
        ),
        for_ever(),
    ]
    client = Client(http_scope("GET", "/models/sse", KEY), leaves_after=3)
    await client.run(api(router))
    assert client.headers["content-type"].startswith("text/event-stream")
    snapshot, *changes = client.events
    assert (snapshot["model"], snapshot["event"]) == ("*", "snapshot")
    assert snapshot["data"]["data"][0]["id"] == "tiny"
    data = {"status": "loaded", "reason": "a request"}
    assert changes == [
        {"model": "tiny", "event": "model_status", "data": data},
        {"model": "tiny", "event": "status_change", "data": data},
    ]
    assert router.subscribers == 0


async def test_the_stream_of_events_ends_with_the_router() -> None:
    router = FakeRouter()
    client = await get(api(router), "/models/sse", headers=KEY)
    assert client.complete
    assert len(client.events) == 1


async def test_progress_is_told_in_llama_servers_words() -> None:
    event = RouterEvent(kind="progress", model="tiny", at_seconds=0.0, data={"value": 0.25})
    (body,) = event_bodies(event)
    assert body == {
        "model": "tiny",
        "event": "status_change",
        "data": {
            "status": "loading",
            "progress": {"stages": ["text_model"], "current": "text_model", "value": 0.25},
        },
    }


async def test_a_download_is_told_as_its_own_stage() -> None:
    event = RouterEvent(
        kind="progress",
        model="tiny",
        at_seconds=0.0,
        state=InstanceState.DOWNLOADING,
        data={"value": 0.25},
    )
    (body,) = event_bodies(event)
    assert body["data"] == {
        "status": "downloading",
        "progress": {"stages": ["download"], "current": "download", "value": 0.25},
    }


async def test_an_event_carries_how_its_model_is_doing() -> None:
    now = view("tiny", state=InstanceState.DRAINING, leases=1, waiting=2, position=1)
    event = RouterEvent(kind="queued", model="tiny", at_seconds=0.0, models=(now,))
    (body,) = event_bodies(event)
    instance = body["data"]["instance"]
    assert (instance["state"], instance["leases"], instance["waiting"]) == ("draining", 1, 2)
    assert instance["queue_position"] == 1


async def test_other_events_go_by_their_own_names() -> None:
    event = RouterEvent(
        kind="evicted", model="tiny", at_seconds=0.0, reason="for big", data={"by": "big"}
    )
    assert event_bodies(event) == [
        {"model": "tiny", "event": "evicted", "data": {"by": "big", "reason": "for big"}}
    ]
