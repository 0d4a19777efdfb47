"""Chat completions and completions, as a client sees them."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import ContextExceededError, QueueTimeoutError, WorkerDiedError
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    FinishDelta,
    Sampling,
    Usage,
)
from tests.support.asgi_driver import Client, http_scope, post
from tests.support.fake_router import FINISH, HELLO, FakeRouter, ScriptItem, for_ever

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 1},
}
TIMINGS = {
    "cache_n": 1,
    "prompt_n": 4,
    "prompt_ms": 500.0,
    "prompt_per_token_ms": 125.0,
    "prompt_per_second": 8.0,
    "predicted_n": 2,
    "predicted_ms": 250.0,
    "predicted_per_token_ms": 125.0,
    "predicted_per_second": 8.0,
}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], **more}


def text(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "Once", **more}


def sender(body: dict[str, Any], **how: Any) -> Client:
    return Client(http_scope("POST", CHAT), [msgspec.json.encode(body)], **how)


def api(router: FakeRouter) -> RouterAPI:
    return RouterAPI(router, api_settings())


def about(chunk: dict[str, Any]) -> tuple[Any, ...]:
    return chunk["id"], chunk["object"], chunk["created"], chunk["model"]


async def test_a_chat_is_answered_in_openais_shape() -> None:
    router = FakeRouter()
    answer = await post(api(router), CHAT, chat())
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    body = answer.json
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "timings": TIMINGS,
    }


async def test_a_completion_is_answered_in_openais_shape() -> None:
    body = (await post(api(FakeRouter()), TEXT, text())).json
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created") > 0
    choice = {"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}
    assert body == {
        "object": "text_completion",
        "model": "tiny",
        "choices": [choice],
        "usage": USAGE,
        "timings": TIMINGS,
    }


async def test_a_streamed_chat_begins_with_the_role_and_ends_with_done() -> None:
    answer = await post(api(FakeRouter()), CHAT, chat(stream=True))
    assert answer.status == 200
    assert answer.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    }
    *chunks, done = answer.events
    assert done == "[DONE]"
    assert len({about(chunk) for chunk in chunks}) == 1
    assert about(chunks[0])[1] == "chat.completion.chunk"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, "stop"]
    assert chunks[-1]["timings"] == TIMINGS
    assert all("usage" not in chunk for chunk in chunks)
    assert answer.complete


async def test_a_streamed_completion_carries_text() -> None:
    *chunks, done = (await post(api(FakeRouter()), TEXT, text(stream=True))).events
    assert done == "[DONE]"
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["Hel", "lo", ""]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat()), (TEXT, text())])
async def test_usage_comes_in_a_last_chunk_where_it_was_asked_for(
    path: str, body: dict[str, Any]
) -> None:
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    *_, finish, usage, _done = (await post(api(FakeRouter()), path, body)).events
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert "timings" not in finish
    assert (usage["choices"], usage["usage"], usage["timings"]) == ([], USAGE, TIMINGS)


async def test_each_delta_is_sent_when_it_comes() -> None:
    gate = anyio.Event()
    router = FakeRouter({"tiny": [ContentDelta("a"), gate.wait, ContentDelta("b"), FINISH]})
    client = sender(chat(stream=True))

    def open_gate() -> None:
        if b'"a"' in client.messages[-1].get("body", b""):
            gate.set()

    client.on_message = open_gate
    await client.run(api(router))
    assert client.events[-1] == "[DONE]"


async def test_odd_characters_arrive_as_they_are() -> None:
    odd = 'é "quoted" \u2028 \n 😀'
    router = FakeRouter({"tiny": [ContentDelta(odd), FINISH]})
    events = (await post(api(router), CHAT, chat(stream=True))).events
    assert events[1]["choices"][0]["delta"]["content"] == odd


async def test_an_empty_answer_is_an_answer() -> None:
    nothing = FinishDelta(reason="length", usage=Usage())
    router = FakeRouter({"tiny": [nothing]})
    whole = (await post(api(router), CHAT, chat())).json
    assert whole["choices"][0]["message"]["content"] == ""
    assert whole["choices"][0]["finish_reason"] == "length"
    assert set(whole["timings"].values()) == {0}
    role, finish, done = (await post(api(router), CHAT, chat(stream=True))).events
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert finish["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


async def test_the_task_holds_what_was_asked_for() -> None:
    router = FakeRouter()
    await post(
        api(router),
        CHAT,
        chat(temperature=0, top_p=0.5, seed=3, max_tokens=9, stop="x", stream=True),
    )
    await post(api(router), TEXT, text(prompt=[1, 2, 3]))
    first, second = (lease.streams[0] for lease in router.leases)
    assert first.task == ChatTask(
        messages=({"role": "user", "content": "Hi"},),
        sampling=Sampling(temperature=0, top_p=0.5, seed=3),
        max_tokens=9,
        stop=("x",),
    )
    assert second.task == CompletionTask(prompt=(1, 2, 3))
    assert first.release_asked
    assert second.release_asked


@pytest.mark.parametrize("stream", [False, True])
async def test_the_lease_is_given_back(stream: bool) -> None:
    router = FakeRouter()
    await post(api(router), CHAT, chat(stream=stream))
    assert router.leases[0].released.is_set()


@pytest.mark.parametrize(
    ("query", "autoload"),
    [(b"", None), (b"autoload=1", True), (b"autoload=true", True), (b"a=b&autoload=0", False)],
)
async def test_loading_on_demand_may_be_switched_for_one_request(
    query: bytes, autoload: bool | None
) -> None:
    router = FakeRouter()
    await post(api(router), CHAT, chat(), query_string=query)
    assert router.autoloads == [autoload]


BAD = [
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    ({"messages": [{"content": "Hi"}]}, "messages[0]"),
    ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 2}, "top_p"),
    ({"seed": "lucky"}, "seed"),
    ({"stop": 5}, "stop"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"n": 0}, "n"),
    ({"n": "two"}, "n"),
    ({"n_cmpl": -1}, "n_cmpl"),
    ({"tools": [{}]}, "tools"),
    ({"response_format": {"type": "yaml"}}, "response_format"),
    ({"response_format": {}}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": {"type": "json_object"}, "grammar": "root ::= []"}, "grammar"),
    ({"response_format": {"type": "json_object"}, "json_schema": {}}, "response_format"),
    ({"json_schema": {}, "grammar": "root ::= []"}, "grammar"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": False, "top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"logprobs": 5}, "logprobs"),
    ({"n_probs": -1}, "n_probs"),
    ({"logit_bias": {"5": True}}, "logit_bias"),
    ({"logit_bias": {"5": None}}, "logit_bias"),
    ({"logit_bias": [[5]]}, "logit_bias[0]"),
    ({"logit_bias": [[-5, 1]]}, "logit_bias"),
    ({"samplers": ["top_q"]}, "samplers"),
    ({"samplers": "kq"}, "samplers"),
    ({"repeat_last_n": -1}, "repeat_last_n"),
    ({"mirostat": 3}, "mirostat"),
    ({"dry_sequence_breakers": []}, "dry_sequence_breakers"),
]


@pytest.mark.parametrize(("change", "param"), BAD)
async def test_a_bad_field_is_a_400_that_names_it(change: dict[str, Any], param: str) -> None:
    router = FakeRouter()
    answer = await post(api(router), CHAT, chat() | change)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param
    assert param.split("[")[0].split(".")[0] in answer.error["message"]
    assert router.leases == []


@pytest.mark.parametrize("path", [CHAT, TEXT, "/v1/embeddings"])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"not json", b'{"model": "tiny"', b'{"model": "\xff"}', b"[]", b"null", b'"x"'],
)
async def test_a_bad_body_is_a_400(path: str, body: bytes) -> None:
    answer = await post(api(FakeRouter()), path, body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


async def test_a_missing_model_is_said_in_llama_servers_words() -> None:
    answer = await post(api(FakeRouter()), CHAT, {"messages": chat()["messages"]})
    assert answer.status == 400
    assert answer.error["message"] == "model name is missing from the request"


async def test_an_unknown_model_is_a_404() -> None:
    answer = await post(api(FakeRouter()), CHAT, chat(model="\x00"))
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert answer.error["param"] == "model"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_delta_is_a_plain_http_error(stream: bool) -> None:
    failure = ContextExceededError("too long", n_prompt_tokens=99, n_ctx=64)
    router = FakeRouter({"tiny": [failure]})
    answer = await post(api(router), CHAT, chat(stream=stream))
    assert answer.status == 400
    assert answer.error["n_prompt_tokens"] == 99
    assert router.leases[0].released.is_set()


async def test_a_router_that_is_busy_says_when_to_come_back() -> None:
    busy = QueueTimeoutError("all busy", retry_after_seconds=2.5)
    answer = await post(api(FakeRouter(refusals={"tiny": busy})), CHAT, chat())
    assert answer.status == 503
    assert answer.headers["retry-after"] == "3"
    assert answer.error["type"] == "unavailable_error"


async def test_an_error_after_the_first_delta_is_the_last_event() -> None:
    router = FakeRouter({"tiny": [ContentDelta("a"), WorkerDiedError("it died")]})
    answer = await post(api(router), CHAT, chat(stream=True))
    assert answer.status == 200
    assert answer.events[-1]["error"]["message"] == "it died"
    assert answer.events[-1]["error"]["code"] == "worker_died"
    assert answer.complete
    assert b"[DONE]" not in answer.body
    assert router.leases[0].released.is_set()


async def test_an_unexpected_error_is_told_as_a_plain_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    late: list[ScriptItem] = [ContentDelta("a"), KeyError("secret")]
    router = FakeRouter({"early": late[1:], "late": late})
    answer = await post(api(router), CHAT, chat(model="early"))
    assert answer.status == 500
    assert answer.error["type"] == "server_error"
    streamed = await post(api(router), CHAT, chat(model="late", stream=True))
    assert streamed.events[-1]["error"]["type"] == "server_error"
    assert b"secret" not in answer.body + streamed.body
    assert caplog.text.count("KeyError: 'secret'") == 2


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ([ContentDelta("a")], 502, "worker_died"),
        (
            [ContentDelta("a"), FinishDelta(reason="cancelled", usage=Usage())],
            503,
            "lease_expired",
        ),
    ],
)
async def test_half_an_answer_is_not_passed_off_as_a_whole_one(
    script: list[ScriptItem], status: int, code: str
) -> None:
    router = FakeRouter({"tiny": script})
    answer = await post(api(router), CHAT, chat())
    assert (answer.status, answer.error["code"]) == (status, code)
    streamed = await post(api(router), CHAT, chat(stream=True))
    assert streamed.events[-1]["error"]["code"] == code


# Clients that leave


async def test_a_client_that_leaves_the_stream_cancels_it() -> None:
    router = FakeRouter({"tiny": [*HELLO[:2], for_ever()]})
    client = sender(chat(stream=True), leaves_after=3)
    await client.run(api(router))
    lease = router.leases[0]
    assert lease.streams[0].cancelled.is_set()
    assert lease.released.is_set()
    assert not client.complete


async def test_a_client_that_leaves_before_the_whole_answer_cancels_it() -> None:
    router = FakeRouter({"tiny": [ContentDelta("a"), for_ever()]})
    client = sender(chat())
    async with anyio.create_task_group() as group:
        group.start_soon(client.run, api(router))
        with anyio.fail_after(5):
            while not (router.leases and router.leases[0].streams):
                await anyio.lowlevel.checkpoint()
        client.gone.set()
    assert router.leases[0].streams[0].cancelled.is_set()
    assert router.leases[0].released.is_set()
    assert client.messages == []


async def test_a_client_that_leaves_the_queue_gives_up_its_place() -> None:
    router = FakeRouter(waits={"tiny": for_ever()})
    client = sender(chat(stream=True))
    async with anyio.create_task_group() as group:
        group.start_soon(client.run, api(router))
        with anyio.fail_after(5):
            while not router.autoloads:
                await anyio.lowlevel.checkpoint()
        client.gone.set()
    assert router.lease_cancelled.is_set()
    assert router.leases == []


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_send_that_breaks_cancels_the_stream(after: int) -> None:
    router = FakeRouter({"tiny": [*HELLO[:2], for_ever()]})
    await sender(chat(stream=True), breaks_after=after).run(api(router))
    assert router.leases[0].streams[0].cancelled.is_set()
    assert router.leases[0].released.is_set()


async def test_a_client_that_leaves_while_it_sends_its_body_is_forgotten() -> None:
    client = Client(http_scope("POST", CHAT), [])
    client.gone.set()
    await client.run(api(FakeRouter()))
    assert client.messages == []
