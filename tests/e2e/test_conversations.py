"""Conversations survive sleep, eviction and restart, with real workers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_router_mw import Router
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ModelLoadError, RouterNotRunningError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.kv_store import KVStore, ram_folder
from llm_router_mw.kv_store.ram_folder import RamFolder
from llm_router_mw.protocols import InstanceHandle
from llm_router_mw.types import InstanceState, RouterEvent, SleepLevel, Step, TextReply
from tests.support.answers import client
from tests.support.real_router import Story, pid_of, real_router, state
from tests.support.served import served
from tests.support.tiny_architectures import write_tiny
from tests.support.waiting import until

LONG = " ".join(f"word{number}" for number in range(60))
"""A few hundred tokens."""


async def ask(router: Router, model: str, text: str = LONG, **more: Any) -> TextReply:
    """Return the answer of *model* to *text*."""
    async with router.acquire(model) as lease:
        messages = [{"role": "user", "content": text}]
        return await lease.chat(messages, max_tokens=8, temperature=0, **more)


def store_of(router: Router) -> KVStore:
    store = router._registry.sleep_handlers["kv-store"]
    assert isinstance(store, KVStore)
    return store


@pytest.mark.asyncio
@pytest.mark.parametrize("level", ["context", "full"])
async def test_one_goes_on_after_sleep_as_if_nothing_had_been(
    letters: Path, level: SleepLevel
) -> None:
    async with real_router(models_dir=letters, n_ctx=2048) as router:
        first = await ask(router, "a")
        assert first.usage.cached_tokens == 0
        await router.sleep("a", level=level)
        again = await ask(router, "a")
        assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
        assert again.text == first.text


@pytest.mark.asyncio
async def test_one_goes_on_after_another_model_has_taken_its_place(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, n_ctx=2048, models_max=1) as router:
        first = await ask(router, "a")
        await ask(router, "b")
        again = await ask(router, "a")
        assert story.evicted() == ["a", "b"]
        assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
        assert again.text == first.text


@pytest.mark.asyncio
async def test_one_goes_on_with_a_longer_text_and_only_that_is_computed(letters: Path) -> None:
    async with real_router(models_dir=letters, n_ctx=2048) as router:
        first = await ask(router, "a")
        never_slept = await ask(router, "b", f"{LONG} and more")
        await router.unload("a")
        longer = await ask(router, "a", f"{LONG} and more")
        shared = longer.usage.cached_tokens
        assert first.usage.prompt_tokens - 32 < shared < longer.usage.prompt_tokens
        assert never_slept.usage.cached_tokens == 0


@pytest.mark.asyncio
async def test_one_goes_on_after_the_router_was_started_again(
    letters: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"models_dir": letters, "n_ctx": 2048, "kv_cache_dir": tmp_path}
    async with real_router(**options) as router:
        first = await ask(router, "a")
    assert the_file_in(tmp_path).stat().st_mode & 0o077 == 0
    async with real_router(**options) as router:
        again = await ask(router, "a")
        assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
        assert again.text == first.text


@pytest.mark.asyncio
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
async def test_a_damaged_file_costs_a_computation_and_no_more(
    letters: Path, tmp_path: Path, damage: str
) -> None:
    options: dict[str, Any] = {"models_dir": letters, "n_ctx": 2048, "kv_cache_dir": tmp_path}
    options["cache_ram"] = 0
    async with real_router(**options) as router:
        first = await ask(router, "a")
        await router.sleep("a")
        hurt(the_file_in(tmp_path), damage)
        again = await ask(router, "a")
        assert (again.usage.cached_tokens, again.text) == (0, first.text)
        await until(lambda: not store_of(router).snapshots())
        # What has been computed again is kept again.
        await router.sleep("a")
        assert (await ask(router, "a")).usage.cached_tokens > 0


def the_file_in(folder: Path) -> Path:
    [path] = folder.glob("*.kv")
    return path


def hurt(path: Path, damage: str) -> None:
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 100)
    elif damage == "changed":
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()


@pytest.mark.asyncio
async def test_the_file_of_another_model_under_the_same_name_is_not_believed(
    letters: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    name = models / "x.gguf"
    name.write_bytes((letters / "a.gguf").read_bytes())
    async with real_router(models_dir=models, n_ctx=2048) as router:
        await ask(router, "x")
        await router.sleep("x")
        new = models / "new"
        new.write_bytes((letters / "b.gguf").read_bytes())
        new.replace(name)
        reply = await ask(router, "x")
        assert reply.usage.cached_tokens == 0
    async with real_router(models_dir=models, n_ctx=2048) as router:
        assert (await ask(router, "x")).text == reply.text


@pytest.mark.asyncio
async def test_a_model_can_be_told_to_keep_nothing(letters: Path) -> None:
    models = {name: {"path": letters / f"{name}.gguf"} for name in "ab"}
    models["a"]["kv_cache"] = False  # type: ignore[assignment]
    async with real_router(models=models, n_ctx=2048) as router:
        for name, is_kept in (("a", False), ("b", True)):
            await ask(router, name)
            await router.sleep(name)
            assert bool((await ask(router, name)).usage.cached_tokens) is is_kept
        assert {each.model for each in store_of(router).snapshots()} == {"b.gguf"}


@pytest.mark.asyncio
async def test_all_can_be_told_to_keep_nothing(letters: Path) -> None:
    async with real_router(models_dir=letters, n_ctx=2048, kv_cache=False) as router:
        await ask(router, "a")
        await router.sleep("a")
        assert (await ask(router, "a")).usage.cached_tokens == 0
        assert not store_of(router).snapshots()


@pytest.mark.asyncio
async def test_what_was_purged_is_computed_again(letters: Path) -> None:
    async with real_router(models_dir=letters, n_ctx=2048) as router:
        await ask(router, "a")
        await router.sleep("a")
        assert (await router.purge_cache("a")).snapshots == 1
        assert (await ask(router, "a")).usage.cached_tokens == 0


def test_the_user_of_another_key_does_not_get_it(letters: Path) -> None:
    door = {"api_keys": ("one", "two")}
    options: dict[str, Any] = {"models_dir": letters, "n_ctx": 2048, "models_max": 1}
    with served(door=door, **options) as server:

        def cached(key: str, model: str = "a") -> int:
            body = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 4}
            headers = {"Authorization": f"Bearer {key}"}
            with client(server.url, headers=headers) as http:
                reply = http.post("/v1/chat/completions", json={"model": model, **body}).json()
            found: int = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
            return found

        assert cached("one") == 0
        cached("one", "b")
        assert cached("two") == 0
        cached("one", "b")
        assert cached("one") > 0


@pytest.mark.asyncio
@pytest.mark.parametrize("architecture", ["qwen35", "granitehybrid", "mamba", "gemma3"])
async def test_models_that_cannot_be_rewound_go_on_as_well(
    tmp_path: Path, architecture: str
) -> None:
    write_tiny(tmp_path / "x.gguf", architecture)
    async with real_router(models_dir=tmp_path, n_ctx=2048) as router:
        messages = [{"role": "user", "content": LONG}]

        async def chat() -> TextReply:
            async with router.acquire("x") as lease:
                return await lease.chat(messages, max_tokens=8, temperature=0)

        first = await chat()
        await router.sleep("x")
        messages += [{"role": "assistant", "content": first.text}]
        messages += [{"role": "user", "content": "Go on."}]
        again = await chat()
        assert again.usage.cached_tokens > first.usage.prompt_tokens // 2
        await router.unload("x")
        await router.purge_cache()
        assert (await chat()).text == again.text


# Trouble


class Killer:
    """Kills the worker of ``a`` when it comes into a phase: in a handler, or by an event."""

    name = "killer"

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.router: Router | None = None
        self.killed = 0

    @hookimpl
    def llm_router_register_sleep_handlers(self, config: RouterConfig) -> list[Killer]:
        return [self]

    @hookimpl
    def llm_router_register_observers(self, config: RouterConfig) -> list[Killer]:
        return [self]

    def on_event(self, event: RouterEvent) -> None:
        if event.state == self.phase:
            self.kill()

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        await handle.sequences()
        if self.phase == "saving":
            self.kill()

    async def resume(self, handle: InstanceHandle) -> None:
        pass

    def kill(self) -> None:
        assert self.router is not None
        if not self.killed:
            self.killed += 1
            os.kill(pid_of(self.router, "a"), signal.SIGKILL)


@pytest.mark.asyncio
@pytest.mark.parametrize("phase", ["saving", "falling_asleep", "sleeping", "waking"])
async def test_a_worker_that_is_killed_costs_nobody_an_answer(letters: Path, phase: str) -> None:
    killer = Killer(phase)
    async with real_router(killer, models_dir=letters, n_ctx=2048) as router:
        killer.router = router
        first = await ask(router, "a")
        await router.sleep("a")
        if phase == "waking":
            with pytest.raises(ModelLoadError, match="signal SIGKILL"):
                await ask(router, "a")
            await router.unload("a")  # which forgives it
        await until(lambda: killer.killed == 1 and state(router, "a") is InstanceState.UNLOADED)
        again = await ask(router, "a")
        assert (again.text, killer.killed) == (first.text, 1)
        # What was saved before is still of use.
        assert bool(again.usage.cached_tokens) == (phase in ("sleeping", "waking"))


class Hanging:
    """Never ends, whatever it is asked."""

    name = "hanging"

    @hookimpl
    def llm_router_register_sleep_handlers(self, config: RouterConfig) -> list[Hanging]:
        return [self]

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        await self.resume(handle)

    async def resume(self, handle: InstanceHandle) -> None:
        await anyio.sleep_forever()


@pytest.mark.asyncio
async def test_a_handler_that_hangs_loses_no_request_and_no_conversation(letters: Path) -> None:
    story = Story()
    options: dict[str, Any] = {"n_ctx": 2048, "sleep_handler_timeout_seconds": 0.3}
    async with real_router(story, Hanging(), models_dir=letters, **options) as router:
        first = await ask(router, "a")
        await router.sleep("a")
        again = await ask(router, "a")
        assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
        failed = [event.reason for event in story.events if event.kind == "handler_failed"]
        assert "took longer than 0.3 s" in failed[0]


class Slow(Hanging):
    """Is not done with sleep before the router closes."""

    name = "slow"

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        await until(lambda: handle.closing)


@pytest.mark.asyncio
async def test_a_router_that_closes_while_a_model_falls_asleep_loses_no_conversation(
    letters: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"n_ctx": 2048, "kv_cache_dir": str(tmp_path / "kv")}
    story = Story()

    async def put_to_sleep() -> None:
        with pytest.raises(RouterNotRunningError):
            await router.sleep("a")

    async with (
        anyio.create_task_group() as tasks,
        real_router(story, Slow(), models_dir=letters, **options) as router,
    ):
        first = await ask(router, "a")
        tasks.start_soon(put_to_sleep)
        await until(lambda: state(router, "a") is InstanceState.FALLING_ASLEEP)
    assert [event.reason for event in story.events if event.kind == "handler_failed"] == []
    async with real_router(models_dir=letters, **options) as router:
        again = await ask(router, "a")
        assert again.usage.cached_tokens == first.usage.prompt_tokens - 1


@pytest.mark.asyncio
async def test_an_overflowing_context_keeps_conversations_beside_it(letters: Path) -> None:
    async with real_router(models_dir=letters, n_ctx=1024, n_parallel=4) as router:
        first = await ask(router, "a")
        for number in range(3):
            await ask(router, "a", f"{number} {LONG}")
        await until(lambda: bool(store_of(router).snapshots()))
        again = await ask(router, "a")
        assert again.usage.cached_tokens == first.usage.prompt_tokens - 1
        assert again.text == first.text


@pytest.mark.asyncio
async def test_many_turns_through_many_swaps_never_change_an_answer(letters: Path) -> None:
    async with (
        real_router(models_dir=letters, n_ctx=2048, models_max=1) as swapping,
        real_router(models_dir=letters, n_ctx=2048, kv_cache=False) as steady,
    ):
        messages = [{"role": "user", "content": LONG}]
        for turn in range(4):
            answers = []
            for router in (swapping, steady):
                async with router.acquire("a") as lease:
                    answers.append(await lease.chat(messages, max_tokens=8, temperature=0))
            assert answers[0].text == answers[1].text
            assert bool(answers[0].usage.cached_tokens) == (turn > 0)
            await ask(swapping, "b")
            messages += [{"role": "assistant", "content": answers[0].text}]
            messages += [{"role": "user", "content": f"And then {turn}?"}]


@pytest.fixture
def tiny_memory(tmp_path: Path) -> Iterator[Path]:
    """Shared memory of 64 KiB."""
    folder = tmp_path / "shm"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, check=False, capture_output=True, timeout=10)
    except FileNotFoundError:
        pytest.skip("there is no such command")
    if made.returncode:
        pytest.skip("it may not be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=10)


@pytest.mark.asyncio
@pytest.mark.parametrize("is_known", [True, False], ids=["known", "found"])
async def test_full_memory_costs_the_conversation_and_nothing_else(
    letters: Path,
    tiny_memory: Path,
    is_known: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ram_folder, "SHARED_MEMORY", str(tiny_memory))
    if not is_known:
        monkeypatch.setattr(RamFolder, "left_bytes", 2**40)
    async with real_router(models_dir=letters, n_ctx=2048) as router:
        first = await ask(router, "a")
        await router.sleep("a")
        again = await ask(router, "a")
        assert (again.usage.cached_tokens, again.text) == (0, first.text)
        assert list(store_of(router).snapshots()) == []
    assert ("is not saved: there is no room" in caplog.text) is not is_known


@pytest.mark.asyncio
async def test_a_full_disk_costs_the_conversation_and_nothing_else(
    letters: Path, tiny_memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_memory / "disk"
    async with real_router(
        models_dir=letters, n_ctx=2048, cache_ram=0, kv_cache_dir=folder
    ) as router:
        first = await ask(router, "a")
        await router.sleep("a")
        again = await ask(router, "a")
        assert (again.usage.cached_tokens, again.text) == (0, first.text)
        assert list_of(folder) == []
    assert "is not saved: there is no room" in caplog.text


def list_of(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]
