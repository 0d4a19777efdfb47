"""What requests say about the model they want, and who may say it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.api.demand import model_name
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import AS_USUAL, EmbeddingDelta
from tests.support.asgi_driver import Client, post
from tests.support.fake_router import FINISH, FakeRouter, ScriptItem

pytestmark = pytest.mark.asyncio

BOSS = (b"x-api-key", b"boss")
VECTOR = EmbeddingDelta(0, b"\0" * 8)
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Once"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/rerank": {"query": "Hi", "documents": ["a"]},
}
CHAT = "/v1/chat/completions"


class Asked:
    """One request, and what the router heard of it."""

    def __init__(self, path: str = CHAT, **settings: Any) -> None:
        script: tuple[ScriptItem, ...] = (VECTOR, FINISH)
        self.router = FakeRouter({"tiny": script})
        self._api = RouterAPI(self.router, api_settings(**{"admin_keys": "boss"} | settings))
        self._path = path

    async def with_fields(self, *headers: tuple[bytes, bytes], **fields: Any) -> Client:
        body = {"model": "tiny", **REQUESTS[self._path], **fields}
        return await post(self._api, self._path, body, headers=headers)

    def heard(self, name: str) -> Any:
        [(_, wish)] = self.router.demands
        return getattr(wish, name)


@pytest.mark.parametrize("path", REQUESTS)
async def test_a_plain_request_asks_for_nothing_special(path: str) -> None:
    asked = Asked(path)
    assert (await asked.with_fields()).status == 200
    assert asked.router.demands == [("tiny", AS_USUAL)]


@pytest.mark.parametrize("path", REQUESTS)
async def test_the_router_hears_whose_request_it_is_and_no_key(path: str) -> None:
    owners = []
    for key in (b"alice's", b"bob's", b"alice's"):
        asked = Asked(path, api_keys=("alice's", "bob's"))
        assert (await asked.with_fields((b"x-api-key", key))).status == 200
        owners.append(asked.heard("owner"))
    assert owners[0] == owners[2] != owners[1]
    assert "alice" not in owners[0]


@pytest.mark.parametrize("path", REQUESTS)
async def test_every_request_may_say_how_long_its_model_stays(path: str) -> None:
    asked = Asked(path)
    assert (await asked.with_fields(keep_alive="5m")).status == 200
    assert asked.heard("keep_alive_seconds") == 300.0


@pytest.mark.parametrize("path", REQUESTS)
async def test_every_request_with_an_admin_key_may_say_how_urgent_it_is(path: str) -> None:
    asked = Asked(path)
    assert (await asked.with_fields(BOSS, priority=-7)).status == 200
    assert asked.heard("priority") == -7


@pytest.mark.parametrize(
    ("fields", "param"), [({"priority": 1}, "priority"), ({"keep_alive": -1}, "keep_alive")]
)
async def test_other_keys_may_not_put_themselves_before_others(
    fields: dict[str, Any], param: str
) -> None:
    for header in ((b"x-api-key", b"user"), (b"x-other", b"")):
        asked = Asked()
        answer = await asked.with_fields(header, **fields)
        assert answer.status == 403
        assert (answer.error["param"], answer.error["code"]) == (param, "permission_denied")
        assert "admin key" in answer.error["message"]
        assert asked.router.demands == []


@pytest.mark.parametrize("fields", [{"priority": 0}, {"priority": None}, {"keep_alive": 0}])
async def test_what_asks_for_no_favour_needs_no_admin_key(fields: dict[str, Any]) -> None:
    assert (await Asked().with_fields(**fields)).status == 200


async def test_a_model_may_be_kept_with_an_admin_key() -> None:
    asked = Asked()
    assert (await asked.with_fields(BOSS, keep_alive="-1m")).status == 200
    assert asked.heard("keep_alive_seconds") == -1.0


async def test_who_may_manage_by_the_scope_may_do_this_too() -> None:
    asked = Asked(admin_keys=(), authorize=lambda scope: True)
    assert (await asked.with_fields(priority=5)).status == 200
    assert asked.heard("priority") == 5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"keep_alive": True}, "keep_alive"),
        ({"keep_alive": [1]}, "keep_alive"),
    ],
)
async def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    answer = await Asked().with_fields(BOSS, **fields)
    assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.parametrize(("given", "seconds"), [(b"20", 20.0), (b"0.5", 0.5)])
async def test_a_header_bounds_the_wait(given: bytes, seconds: float) -> None:
    asked = Asked()
    await asked.with_fields((b"x-llm-router-timeout", given))
    assert asked.heard("timeout_seconds") == seconds


@pytest.mark.parametrize("given", [b"", b"0", b"-1", b"soon", b"nan", b"inf", b"\xff"])
async def test_a_bound_that_is_none_is_refused(given: bytes) -> None:
    asked = Asked()
    answer = await asked.with_fields((b"x-llm-router-timeout", given))
    assert (answer.status, answer.error["param"]) == (400, "X-LLM-Router-Timeout")
    assert asked.router.demands == []


@pytest.mark.parametrize("given", [None, ""])
async def test_a_request_must_name_its_model(given: str | None) -> None:
    with pytest.raises(InvalidRequestError, match="model name is missing") as caught:
        model_name(given)
    assert caught.value.param == "model"
