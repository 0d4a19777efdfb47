"""llama-server's ``/props`` and ``/slots``: they tell, and touch nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    EmbedTask,
    InstanceState,
    LoadOptions,
    RerankTask,
    Task,
)
from tests.support.asgi_driver import Client, get
from tests.support.fake_router import INFO, FakeRouter, view

pytestmark = pytest.mark.asyncio

BOSS = [(b"x-api-key", b"boss")]


def router_of(**fields: Any) -> FakeRouter:
    router = FakeRouter()
    router.views = (view("tiny", **fields),)
    return router


async def ask(router: FakeRouter, path: str, query: bytes = b"", *, boss: bool = False) -> Client:
    api = RouterAPI(router, api_settings(routes=("inference", "management"), admin_keys="boss"))
    answer = await get(api, path, query_string=query, headers=BOSS if boss else [])
    assert (router.demands, router.calls) == ([], [])
    return answer


async def test_the_router_tells_its_role_and_limits() -> None:
    answer = await ask(FakeRouter(), "/props")
    assert answer.json == {
        "role": "router",
        "max_instances": 4,
        "models_autoload": True,
        "model_alias": "llama-server",
        "model_path": "none",
        "default_generation_settings": {"params": {}, "n_ctx": 0},
        "is_sleeping": False,
    }


async def test_what_plugins_did_wrong_is_for_managers() -> None:
    router = FakeRouter()
    router.plugin_failures = {"observer 'mine'": 3}
    assert "plugin_failures" not in (await ask(router, "/props")).json
    shown = (await ask(router, "/props", boss=True)).json
    assert shown["plugin_failures"] == {"observer 'mine'": 3}


async def test_a_model_tells_how_it_was_loaded() -> None:
    router = router_of(state=InstanceState.LOADED, info=INFO)
    props = (await ask(router, "/props", b"model=tiny", boss=True)).json
    assert (props["role"], props["model_alias"]) == ("model", "tiny")
    assert props["model_path"] == "/models/tiny.gguf"
    assert props["total_slots"] == 4
    settings = props["default_generation_settings"]
    assert (settings["n_ctx"], settings["params"]["temperature"]) == (512, 0.8)
    assert props["is_sleeping"] is False
    assert props["status"] == {"value": "loaded"}


@pytest.mark.parametrize(
    ("state", "asleep"),
    [
        (InstanceState.SLEEPING, True),
        (InstanceState.FALLING_ASLEEP, False),
        (InstanceState.WAKING, False),
        (InstanceState.UNLOADED, False),
    ],
)
async def test_a_model_tells_whether_it_sleeps(state: InstanceState, asleep: bool) -> None:
    answer = await ask(router_of(state=state), "/props", b"model=tiny")
    assert answer.json["is_sleeping"] is asleep


async def test_a_model_that_is_not_loaded_tells_what_is_known() -> None:
    props = (await ask(router_of(), "/props", b"model=tiny")).json
    assert props["default_generation_settings"]["n_ctx"] == 0
    assert props["total_slots"] == LoadOptions().n_parallel
    assert props["status"] == {"value": "unloaded"}


async def test_paths_and_templates_are_for_the_admin_key() -> None:
    router = router_of()
    options = LoadOptions(chat_template="secret words")
    model = msgspec.structs.replace(router.views[0].model, options=options)
    router.views = (msgspec.structs.replace(router.views[0], model=model),)
    public = await ask(router, "/props", b"model=tiny")
    assert "secret" not in public.body.decode()
    assert "/models" not in public.body.decode()
    managed = await ask(router, "/props", b"model=tiny", boss=True)
    assert managed.json["chat_template"] == "secret words"


async def test_each_request_has_its_part_of_a_context_that_is_not_shared() -> None:
    router = router_of(info=INFO)
    options = LoadOptions(kv_unified=False)
    model = msgspec.structs.replace(router.views[0].model, options=options, aliases=("small",))
    router.views = (msgspec.structs.replace(router.views[0], model=model),)
    answer = await ask(router, "/props", b"model=small")
    assert answer.json["default_generation_settings"]["n_ctx"] == 128


async def test_slots_tell_who_is_served() -> None:
    router = router_of(state=InstanceState.LOADED, info=INFO)
    router.running_tasks = (CompletionTask(prompt="a secret"),)
    answer = await ask(router, "/slots", b"model=tiny", boss=True)
    slot = {"n_ctx": 512, "speculative": False, "is_processing": False}
    assert answer.json == [
        {**slot, "id": 0, "is_processing": True, "prompt": "a secret"},
        {**slot, "id": 1},
        {**slot, "id": 2},
        {**slot, "id": 3},
    ]


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        (
            ChatTask(messages=({"role": "user", "content": "Hi"},)),
            [{"role": "user", "content": "Hi"}],
        ),
        (CompletionTask(prompt=(1, 2)), [1, 2]),
        (EmbedTask(inputs=("a", (3,))), ["a", [3]]),
        (RerankTask(query="q", documents=("d",)), {"query": "q", "documents": ["d"]}),
    ],
)
async def test_a_prompt_is_shown_as_it_came(task: Task, shown: Any) -> None:
    router = router_of(state=InstanceState.LOADED, info=INFO)
    router.running_tasks = (task,)
    answer = await ask(router, "/slots", b"model=tiny", boss=True)
    assert answer.json[0]["prompt"] == shown


async def test_prompts_are_for_the_admin_key() -> None:
    router = router_of(state=InstanceState.LOADED, info=INFO)
    router.running_tasks = (CompletionTask(prompt="a secret"),)
    answer = await ask(router, "/slots", b"model=tiny")
    assert answer.status == 200
    assert "secret" not in answer.body.decode()
    assert answer.json[0]["is_processing"] is True


@pytest.mark.parametrize(("busy", "status"), [(3, 200), (4, 503), (5, 503)])
async def test_a_missing_slot_may_be_an_error(busy: int, status: int) -> None:
    router = router_of(state=InstanceState.LOADED, info=INFO)
    router.running_tasks = (CompletionTask(prompt="Once"),) * busy
    answer = await ask(router, "/slots", b"model=tiny&fail_on_no_slot=1")
    assert answer.status == status
    plain = await ask(router, "/slots", b"model=tiny")
    assert len(plain.json) == max(busy, 4)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [("/props", b"model=other", 404), ("/slots", b"model=other", 404), ("/slots", b"", 400)],
)
async def test_a_model_that_is_not_there_is_named(path: str, query: bytes, status: int) -> None:
    answer = await ask(FakeRouter(), path, query)
    assert (answer.status, answer.error["param"]) == (status, "model")


@pytest.mark.parametrize("path", ["/props", "/slots"])
async def test_where_keys_are_needed_they_are_needed_here_too(path: str) -> None:
    settings = api_settings(routes=("management",), api_keys="user", admin_keys="boss")
    answer = await get(RouterAPI(FakeRouter(), settings), path)
    assert answer.status == 401


@pytest.mark.parametrize("path", ["/props", "/slots"])
async def test_they_are_served_where_asked_for(path: str) -> None:
    assert (await get(RouterAPI(FakeRouter(), api_settings()), path)).status == 404
