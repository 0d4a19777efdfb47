"""Several answers to one request (``n``): streams of one lease, merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import WorkerDiedError
from llm_router_mw.protocols import OnQueued
from llm_router_mw.types import (
    AS_USUAL,
    ChatTask,
    CompletionTask,
    ContentDelta,
    FinishDelta,
    FinishReason,
    Task,
    Timings,
    Usage,
    Wish,
)
from tests.support.asgi_driver import Client, http_scope, post
from tests.support.fake_router import FakeLease, FakeRouter, FakeStream, ScriptItem, for_ever

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
N_PARALLEL = 4


@dataclass
class LeaseOfScripts(FakeLease):
    """Gives each stream a script of its own."""

    scripts: Sequence[Sequence[ScriptItem]] = ()

    def stream(self, task: Task, *, release: bool = False) -> FakeStream:
        self.script = self.scripts[len(self.streams)]
        return super().stream(task, release=release)


class RouterOfScripts(FakeRouter):
    def __init__(self, *scripts: Sequence[ScriptItem]) -> None:
        super().__init__()
        self._choices = scripts

    async def lease(
        self, model: str, wish: Wish = AS_USUAL, *, on_queued: OnQueued | None = None
    ) -> FakeLease:
        self.leases.append(LeaseOfScripts(model, (), scripts=self._choices))
        return self.leases[-1]


def finish(
    reason: FinishReason = "stop", made: int = 2, cached: int = 0, seconds: float = 0.5
) -> FinishDelta:
    usage = Usage(prompt_tokens=5, completion_tokens=made, cached_tokens=cached)
    return FinishDelta(reason, usage, Timings(prompt_seconds=0.25, predicted_seconds=seconds))


def two() -> RouterOfScripts:
    return RouterOfScripts(
        [ContentDelta("a"), ContentDelta("b"), finish(made=2)],
        [ContentDelta("x"), finish("length", made=3, cached=4, seconds=2.0)],
    )


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "n": 2, **more}


def text(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "Once", "n": 2, **more}


def api(router: FakeRouter) -> RouterAPI:
    return RouterAPI(router, api_settings())


async def test_whole_answers_are_choices_of_one_body() -> None:
    router = two()
    body = (await post(api(router), CHAT, chat())).json
    assert [
        (choice["index"], choice["message"]["content"], choice["finish_reason"])
        for choice in body["choices"]
    ] == [(0, "ab", "stop"), (1, "x", "length")]
    assert len(router.leases) == 1


async def test_completions_have_choices_too() -> None:
    body = (await post(api(two()), TEXT, text())).json
    assert [(each["index"], each["text"]) for each in body["choices"]] == [(0, "ab"), (1, "x")]


async def test_the_prompt_is_counted_once() -> None:
    body = (await post(api(two()), TEXT, text())).json
    counts = {name: body["usage"][name] for name in ("prompt_tokens", "completion_tokens")}
    assert counts == {"prompt_tokens": 5, "completion_tokens": 5}
    assert body["usage"]["total_tokens"] == 10
    assert body["timings"]["predicted_ms"] == 2000
    assert body["timings"]["predicted_per_second"] == 2.5


async def test_a_stream_carries_all_choices_and_ends_once() -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    *chunks, usage, done = (await post(api(two()), CHAT, body)).events
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 10
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    for number, content, reason in ((0, "ab", "stop"), (1, "x", "length")):
        mine = [choice for choice in choices if choice["index"] == number]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in mine) == content
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + [reason]


@pytest.mark.parametrize("include_usage", [False, True])
async def test_timings_come_in_the_last_chunk_only(include_usage: bool) -> None:
    body = text(stream=True, stream_options={"include_usage": include_usage})
    *chunks, _done = (await post(api(two()), TEXT, body)).events
    assert ["timings" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


async def test_choices_come_as_they_are_made() -> None:
    gate = anyio.Event()
    router = RouterOfScripts(
        [gate.wait, ContentDelta("late"), finish()], [ContentDelta("early"), finish()]
    )
    client = Client(http_scope("POST", TEXT), [msgspec.json.encode(text(stream=True))])

    def open_gate() -> None:
        if b'"early"' in client.messages[-1].get("body", b""):
            gate.set()

    client.on_message = open_gate
    await client.run(api(router))
    assert client.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("seed", "seeds"), [(7, [7, 8, 9]), (None, [None] * 3), (-1, [None] * 3), (0, [0, 1, 2])]
)
async def test_seeds_differ_if_there_is_one(seed: int | None, seeds: list[int | None]) -> None:
    router = RouterOfScripts(*[[finish()]] * 3)
    await post(api(router), TEXT, text(n=3, seed=seed))
    tasks = [stream.task for stream in router.leases[0].streams]
    assert [task.sampling.seed for task in tasks if isinstance(task, CompletionTask)] == seeds


async def test_nothing_else_differs() -> None:
    router = RouterOfScripts([finish()], [finish()])
    await post(api(router), CHAT, chat(seed=3, max_tokens=9))
    first, second = (stream.task for stream in router.leases[0].streams)
    assert isinstance(first, ChatTask)
    assert isinstance(second, ChatTask)
    sampling = msgspec.structs.replace(second.sampling, seed=3)
    assert msgspec.structs.replace(second, sampling=sampling) == first
    assert first.max_tokens == 9


@pytest.mark.parametrize("stream", [False, True])
async def test_the_lease_is_given_back_when_all_are_done(stream: bool) -> None:
    router = two()
    await post(api(router), CHAT, chat(stream=stream))
    assert router.leases[0].released.is_set()
    assert not any(each.release_asked for each in router.leases[0].streams)


async def test_one_answer_gives_its_lease_back_by_itself() -> None:
    router = RouterOfScripts([finish()])
    await post(api(router), TEXT, text(n=1))
    assert [stream.release_asked for stream in router.leases[0].streams] == [True]


async def test_llama_servers_name_means_the_same() -> None:
    body = (await post(api(two()), TEXT, text(n=None, n_cmpl=2))).json
    assert len(body["choices"]) == 2


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat()), (TEXT, text())])
async def test_more_than_the_instance_serves_at_once_is_a_400(
    path: str, body: dict[str, Any]
) -> None:
    router = RouterOfScripts(*[[finish()]] * N_PARALLEL)
    answer = await post(api(router), path, body | {"n": N_PARALLEL + 1})
    assert answer.status == 400
    assert answer.error["param"] == "n"
    assert "at most 4" in answer.error["message"]
    assert router.leases[0].released.is_set()
    assert router.leases[0].streams == []
    assert (await post(api(router), path, body | {"n": N_PARALLEL})).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_of_one_is_the_error_of_all(stream: bool) -> None:
    router = RouterOfScripts([WorkerDiedError("it died")], [for_ever()])
    answer = await post(api(router), CHAT, chat(stream=stream))
    assert answer.status == 502
    assert answer.error["code"] == "worker_died"
    assert all(each.cancelled.is_set() for each in router.leases[0].streams)
    assert router.leases[0].released.is_set()


async def test_an_error_in_the_middle_ends_the_stream() -> None:
    gate = anyio.Event()
    router = RouterOfScripts(
        [ContentDelta("a"), gate.wait, WorkerDiedError("it died")], [for_ever()]
    )
    client = Client(http_scope("POST", TEXT), [msgspec.json.encode(text(stream=True))])
    client.on_message = gate.set
    await client.run(api(router))
    assert client.events[-1]["error"]["code"] == "worker_died"
    assert b"[DONE]" not in client.body
    assert router.leases[0].released.is_set()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_all(stream: bool) -> None:
    router = RouterOfScripts([ContentDelta("a"), for_ever()], [for_ever()])
    client = Client(http_scope("POST", CHAT), [msgspec.json.encode(chat(stream=stream))])
    async with anyio.create_task_group() as group:
        group.start_soon(client.run, api(router))
        with anyio.fail_after(5):
            while not (router.leases and len(router.leases[0].streams) == 2):
                await anyio.lowlevel.checkpoint()
        client.gone.set()
    assert all(each.cancelled.is_set() for each in router.leases[0].streams)
    assert router.leases[0].released.is_set()
