"""The engine keeps to what is asked of engines, with a server that does as tests want."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import log
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from llm_router_mw import Router
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import (
    ConfigError,
    ContextExceededError,
    InvalidRequestError,
    LLMRouterError,
    ModelLoadError,
    ModelUnloadedError,
    WireError,
    WorkerDiedError,
)
from llm_router_mw.protocols import DeltaStream
from llm_router_mw.testing import check_engine, small_model
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    EmbedTask,
    FinishDelta,
    LoadOptions,
    Model,
    Placement,
    ProgressDelta,
    RerankTask,
    Sampling,
    Task,
    Timings,
    Usage,
)
from llm_router_mw.wire import Load
from llm_router_mw_llamaserver import LlamaServerEngine
from llm_router_mw_llamaserver.instance import LlamaServerInstance
from llm_router_mw_llamaserver.options import Options

pytestmark = pytest.mark.asyncio

CONFIG = RouterConfig(stop_timeout_seconds=5, client_stall_seconds=5)


@pytest.fixture
def binary(tmp_path: Path) -> str:
    """A program that behaves like llama-server."""
    source = Path(__file__).with_name("fake_llama_server.py").read_text()
    path = tmp_path / "llama-server"
    path.write_text(f"#!{sys.executable} -I\n{source}")
    path.chmod(0o700)
    return str(path)


class Site:
    """An engine, and models whose names say how they behave."""

    def __init__(self, engine: LlamaServerEngine, folder: Path) -> None:
        self.engine = engine
        self._folder = folder

    def order(self, name: str = "fine", **options: Any) -> Load:
        path = small_model().write(self._folder / f"{name}.gguf")
        placement = Placement(n_ctx=256)
        return Load(
            path=str(path), options=LoadOptions(**options), chat_formats={}, placement=placement
        )

    async def loaded(self, name: str = "fine", **options: Any) -> LlamaServerInstance:
        instance = await self.engine.create()
        await instance.load(self.order(name, **options), lambda fraction: None)
        return instance

    def noted(self, kind: str, name: str = "fine") -> list[Any]:
        """Return what the servers of a model wrote down."""
        path = self._folder / f"{name}.{kind}"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def request(self) -> dict[str, Any]:
        """Return the last body."""
        body: dict[str, Any] = self.noted("requests")[-1][1]
        return body


Make = Callable[..., Any]


@pytest.fixture
def site(tmp_path: Path, binary: str) -> Make:
    @asynccontextmanager
    async def make(*args: str, **config: Any) -> AsyncIterator[Site]:
        changed: RouterConfig = replace(CONFIG, **config)
        engine = LlamaServerEngine(changed, Options(binary=binary, args=args))
        async with engine.running():
            yield Site(engine, tmp_path)

    return make


async def read(instance: LlamaServerInstance, task: Task) -> list[Delta]:
    finished: list[bool] = []
    stream = instance.submit(task, lambda: finished.append(True))
    try:
        return [delta async for delta in stream]
    finally:
        assert finished == [True]


async def until(holds: Callable[[], object]) -> None:
    """Return when *holds* says so."""
    for _ in range(1000):
        if holds():
            return
        await anyio.sleep(0.005)
    raise AssertionError("it did not come to be")


# Answers


async def test_it_conforms(tmp_path: Path, binary: str) -> None:
    path = small_model().write(tmp_path / "fine.gguf")
    engine = LlamaServerEngine(CONFIG, Options(binary=binary))
    await check_engine(engine, Model(id="fine", path=str(path), source="test"))


async def test_a_router_finds_it_and_serves_with_it(tmp_path: Path, binary: str) -> None:
    path = small_model().write(tmp_path / "fine.gguf")
    router = Router(
        models={"fine": {"path": str(path)}},
        engine="llama-server",
        models_memory_margin=0,
        observations_dir=str(tmp_path),
        plugin_options={"llama-server": {"binary": binary}},
    )
    async with router, router.acquire("fine") as llm:
        reply = await llm.chat([{"role": "user", "content": "hi"}])
        assert (reply.text, reply.usage.total_tokens) == ("ab", 4)


async def test_an_answer_comes_with_probabilities_usage_and_timings(site: Make) -> None:
    async with site() as here:
        deltas = await read(await here.loaded(), CompletionTask(prompt="Once"))
    progress, content, finish = deltas
    assert progress == ProgressDelta(total=3, cached=1, processed=3, seconds=0.5)
    assert isinstance(content, ContentDelta)
    assert content.text == "ab"
    assert content.logprobs[0].logprob == log(0.5)
    usage = Usage(prompt_tokens=3, completion_tokens=1, cached_tokens=1)
    assert finish == FinishDelta("stop", usage, Timings(prompt_seconds=1, predicted_seconds=2))


async def test_a_conversation_is_templated_by_the_server(site: Make) -> None:
    async with site() as here:
        messages = ({"role": "user", "content": "hi"},)
        await read(await here.loaded(), ChatTask(messages=messages))
        assert here.request()["prompt"] == "<hi>"


async def test_all_that_is_asked_is_passed_on(site: Make) -> None:
    sampling = Sampling(temperature=0, seed=7, json_schema='{"type": "object"}', grammar="root")
    sampling = replace(sampling, logit_bias=((1, False),))
    task = CompletionTask(
        prompt=(1, 2), sampling=sampling, max_tokens=5, max_seconds=1.5, lora=((0, 0.5),)
    )
    async with site() as here:
        await read(await here.loaded(), task)
        body = here.request()
    assert (body["prompt"], body["n_predict"], body["t_max_predict_ms"]) == ([1, 2], 5, 1500)
    assert (body["temperature"], body["seed"], body["logit_bias"]) == (0, 7, [[1, False]])
    assert (body["json_schema"], body["grammar"]) == ({"type": "object"}, "root")
    assert body["lora"] == [{"id": 0, "scale": 0.5}]


@pytest.mark.parametrize(
    ("share", "namespace", "is_cached"), [(False, "k", False), (True, "k", True), (False, "", True)]
)
async def test_users_share_no_cache_unless_the_model_says_so(
    site: Make, share: bool, namespace: str, is_cached: bool
) -> None:
    async with site() as here:
        task = CompletionTask(prompt="Once", cache_namespace=namespace)
        await read(await here.loaded(share_prefix=share), task)
        assert here.request()["cache_prompt"] is is_cached


async def test_vectors_are_cut_as_asked(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded(pooling="mean")
        whole = await read(instance, EmbedTask(inputs=("a", "b")))
        cut = await read(instance, EmbedTask(inputs=("a",), dimensions=1))
    assert [delta.index for delta in whole if isinstance(delta, EmbeddingDelta)] == [0, 1]
    assert isinstance(whole[-1], FinishDelta)
    assert cut[0] == EmbeddingDelta(0, b"\x00\x00\x80\x3f")  # 1.0


async def test_documents_are_scored(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded(pooling="rank")
        deltas = await read(instance, RerankTask(query="q", documents=("a", "b")))
    assert deltas[1] == EmbeddingDelta(1, b"\x00\x00\x00\x3f")  # 0.5


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("too long", ContextExceededError),
        ("odd", LLMRouterError),
        ("error", ModelUnloadedError),
        ("garbage", WireError),
        ("half", WorkerDiedError),
    ],
)
async def test_errors_are_told_as_ours(site: Make, prompt: str, error: type[Exception]) -> None:
    async with site() as here:
        instance = await here.loaded()
        with pytest.raises(error):
            await read(instance, CompletionTask(prompt=prompt))
        assert await read(instance, CompletionTask(prompt="Once"))


async def test_a_schema_may_be_a_dict_or_text(site: Make) -> None:
    async with site() as here:
        sampling = Sampling(json_schema={"type": "object"})
        await read(await here.loaded(), CompletionTask(prompt="Once", sampling=sampling))
        assert here.request()["json_schema"] == {"type": "object"}


async def test_a_task_that_is_no_json_ends_alone(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded()
        with pytest.raises(WireError, match="understood"):
            await read(instance, ChatTask(messages=({"role": object()},)))
        assert await read(instance, CompletionTask(prompt="Once"))


async def test_a_schema_that_is_no_json_is_refused(site: Make) -> None:
    async with site() as here:
        task = CompletionTask(prompt="Once", sampling=Sampling(json_schema="{"))
        with pytest.raises(InvalidRequestError, match="json_schema"):
            await read(await here.loaded(), task)


# Readers


async def test_cancelling_closes_the_connection(site: Make) -> None:
    async with site() as here:
        stream: DeltaStream = (await here.loaded()).submit(
            CompletionTask(prompt="endless"), lambda: None
        )
        assert await anext(aiter(stream))
        stream.cancel()
        *_, last = [delta async for delta in stream]
        assert isinstance(last, FinishDelta)
        assert last.reason == "cancelled"
        await until(lambda: here.noted("closed"))


async def test_no_more_is_read_than_the_reader_takes_and_one_who_takes_nothing_is_cancelled(
    site: Make,
) -> None:
    async with site(client_stall_seconds=0.2) as here:
        finished: list[bool] = []
        stream = (await here.loaded()).submit(
            CompletionTask(prompt="endless"), lambda: finished.append(True)
        )
        await until(lambda: finished)
        for _ in range(256):
            await anext(aiter(stream))
        with pytest.raises(LLMRouterError, match="nothing was read"):
            await anext(aiter(stream))


async def test_a_long_answer_comes_whole(site: Make) -> None:
    async with site() as here:
        deltas = await read(await here.loaded(), CompletionTask(prompt="long"))
    assert len(deltas) == 302


# Life and death


async def test_sleep_ends_the_server_and_waking_starts_another(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded()
        first = instance.pid
        assert (await instance.sleep("context")).private_bytes == 0
        assert (await instance.sleep("full")).private_bytes == 0
        assert instance.pid is None
        with pytest.raises(ModelUnloadedError):
            await read(instance, CompletionTask(prompt="Once"))
        await instance.wake(lambda fraction: None)
        assert instance.pid not in (None, first)
        assert await read(instance, CompletionTask(prompt="Once"))
        assert ["--no-warmup" in start for start in here.noted("starts")] == [False, True]


async def test_it_does_not_sleep_while_it_works(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded()
        stream = instance.submit(CompletionTask(prompt="endless"), lambda: None)
        with pytest.raises(WireError, match="under way"):
            await instance.sleep("full")
        stream.cancel()


async def test_what_cannot_wake_can_be_stopped(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded("relapse")
        await instance.sleep("full")
        with pytest.raises(ModelLoadError):
            await instance.wake(lambda fraction: None)
        await instance.stop(5)
        await instance.wait()
        with pytest.raises(WorkerDiedError):
            await instance.sleep("full")


async def test_a_crash_ends_requests_and_is_reported(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded()
        with pytest.raises(WorkerDiedError, match="exited with code 3"):
            await read(instance, CompletionTask(prompt="die"))
        assert (await instance.wait()).exit_code == 3
        with pytest.raises(WorkerDiedError):
            await read(instance, CompletionTask(prompt="Once"))


async def test_one_that_says_nothing_is_stuck(site: Make) -> None:
    async with site(worker_stall_seconds=0.2) as here:
        instance = await here.loaded()
        with pytest.raises(WorkerDiedError, match="was stuck"):
            await read(instance, CompletionTask(prompt="silent"))
        assert "stuck" in (await instance.wait()).offence


async def test_stopping_is_polite_first(site: Make) -> None:
    async with site() as here:
        polite, stubborn = await here.loaded(), await here.loaded("stubborn")
        await polite.stop(5)
        await stubborn.stop(0.1)
        assert (await polite.wait()).exit_code == -signal.SIGTERM
        assert (await stubborn.wait()).exit_code == -signal.SIGKILL
        await polite.stop(5)


async def test_killing_is_at_once(site: Make) -> None:
    async with site() as here:
        awake, asleep = await here.loaded(), await here.loaded()
        await asleep.sleep("full")
        awake.kill()
        asleep.kill()
        assert (await awake.wait()).exit_code == -signal.SIGKILL
        await asleep.wait()


async def test_leaving_the_engine_ends_all_servers(site: Make) -> None:
    async with site() as here:
        instance = await here.loaded()
        stream = instance.submit(CompletionTask(prompt="endless"), lambda: None)
    assert instance.pid is None
    with pytest.raises(LLMRouterError):
        [delta async for delta in stream]
    with pytest.raises(ModelLoadError, match="closing"):
        await here.engine.create()


# Loads


@pytest.mark.parametrize("name", ["oom", "killed"])
async def test_lack_of_memory_is_told_apart(site: Make, name: str) -> None:
    async with site() as here:
        with pytest.raises(ModelLoadError, match="not enough memory") as caught:
            await here.loaded(name)
    assert caught.value.fields["out_of_memory"] is True


@pytest.mark.parametrize(("name", "text"), [("broken", "code 1"), ("mute", "does not tell")])
async def test_other_failures_are_no_lack_of_memory(site: Make, name: str, text: str) -> None:
    async with site() as here:
        with pytest.raises(ModelLoadError, match=text) as caught:
            await here.loaded(name)
    assert "out_of_memory" not in caught.value.fields


async def test_a_load_without_progress_is_given_up(site: Make) -> None:
    async with site(load_stall_seconds=0.3) as here:
        with pytest.raises(ModelLoadError, match="no progress"):
            await here.loaded("stalls")


async def test_a_load_can_be_stopped(site: Make) -> None:
    async with site() as here, anyio.create_task_group() as tasks:
        instance = await here.engine.create()

        async def load() -> None:
            with pytest.raises(LLMRouterError):
                await instance.load(here.order("stalls"), lambda fraction: None)

        tasks.start_soon(load)
        await until(lambda: here.noted("starts", "stalls"))
        await instance.stop(5)
        await instance.wait()


async def test_a_port_that_others_took_is_no_failure(site: Make) -> None:
    async with site() as here:
        await here.loaded("port")
        ports = {start[start.index("--port") + 1] for start in here.noted("starts", "port")}
        assert len(here.noted("starts", "port")) == 3
        assert len(ports) > 1
        with pytest.raises(ModelLoadError, match="port"):
            await here.loaded("ports")


async def test_the_key_is_in_no_argument(site: Make) -> None:
    async with site() as here:
        await here.loaded()
        [start] = here.noted("starts")
    assert "--api-key" not in start


async def test_a_binary_that_is_missing_is_named() -> None:
    with pytest.raises(ModelLoadError, match="no program 'nowhere'"):
        Options(binary="nowhere").found()


async def test_a_binary_that_cannot_run_is_named(site: Make, binary: str) -> None:
    Path(binary).write_text("#!/nowhere/python\n")  # noqa: ASYNC240  (a test has time)
    async with site() as here:
        with pytest.raises(ModelLoadError, match="could not be started"):
            await here.loaded()


async def test_an_unknown_option_is_an_error_at_start_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="threads"):
        Router(models_dir=str(tmp_path), plugin_options={"llama-server": {"threads": 3}})
