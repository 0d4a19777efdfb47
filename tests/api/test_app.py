"""What holds for every route: paths, methods, keys, sizes."""

from __future__ import annotations

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import RouterNotRunningError
from tests.support.asgi_driver import Client, get, http_scope, post
from tests.support.fake_router import FakeRouter

pytestmark = pytest.mark.asyncio

API = RouterAPI(FakeRouter(), api_settings())
GUARDED = RouterAPI(FakeRouter(), api_settings(api_keys="secret"))
SMALL = RouterAPI(FakeRouter(), api_settings(max_body_bytes=100))
CHAT = "/v1/chat/completions"


async def test_only_http_is_claimed() -> None:
    assert API.claims(http_scope("GET", "/v1/models"))
    assert not API.claims({"type": "websocket", "path": "/v1/models"})
    assert not API.claims({"type": "lifespan"})


async def test_models_are_listed() -> None:
    answer = await get(API, "/v1/models")
    assert answer.status == 200
    assert [model["id"] for model in answer.json["data"]] == ["tiny"]


async def test_head_has_headers_and_no_body() -> None:
    answer = await get(API, "/v1/models", "HEAD")
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 0
    assert answer.body == b""


async def test_an_unknown_path_is_a_json_404() -> None:
    answer = await get(API, "/v1/nope")
    assert answer.status == 404
    assert answer.error["type"] == "not_found_error"


async def test_a_wrong_method_is_a_405_with_the_right_ones() -> None:
    answer = await get(API, CHAT)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert answer.error["code"] == 405


async def test_options_needs_no_key_and_no_body() -> None:
    answer = await get(GUARDED, CHAT, "OPTIONS")
    assert answer.status == 204
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert answer.body == b""


async def test_a_missing_key_is_refused_before_the_body_is_read() -> None:
    client = Client(http_scope("POST", CHAT), [])  # it would wait for ever for a body
    await client.run(GUARDED)
    assert client.status == 401
    assert client.error["type"] == "authentication_error"
    assert client.error["code"] == "invalid_api_key"


async def test_the_right_key_opens() -> None:
    answer = await get(GUARDED, "/v1/models", headers=[(b"authorization", b"Bearer secret")])
    assert answer.status == 200


async def test_a_body_that_announces_too_much_is_refused_unread() -> None:
    headers = [(b"content-length", b"101")]
    client = await Client(http_scope("POST", CHAT, headers), []).run(SMALL)
    assert client.status == 413
    assert client.error["code"] == "request_too_large"
    assert "100 bytes" in client.error["message"]


async def test_a_body_that_grows_too_large_is_refused_on_the_way() -> None:
    client = await Client(http_scope("POST", CHAT), [b" " * 60, b" " * 60, b"{}"]).run(SMALL)
    assert client.status == 413


async def test_a_body_may_come_in_pieces() -> None:
    pieces = [b'{"model":"tiny",', b"", b'"prompt":', b'"Once"}']
    client = await Client(http_scope("POST", "/v1/completions"), pieces).run(SMALL)
    assert client.status == 200


async def test_a_content_length_that_is_no_number_is_ignored() -> None:
    body = {"model": "tiny", "prompt": "Once"}
    answer = await post(API, "/v1/completions", body, headers=[(b"content-length", b"-5")])
    assert answer.status == 200


async def test_the_door_is_asked_to_start_the_router_before_it_is_needed() -> None:
    asked: list[str] = []

    async def start() -> None:
        asked.append("start")
        raise RouterNotRunningError("it does not start")

    api = RouterAPI(FakeRouter(), api_settings(), start)
    assert (await get(api, "/v1/nope")).status == 404
    assert asked == []
    answer = await get(api, "/v1/models")
    assert (answer.status, answer.error["message"]) == (503, "it does not start")
    assert asked == ["start"]
