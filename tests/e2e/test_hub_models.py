"""Models of the hub: judged before they are downloaded, downloaded when they are asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from llm_router_mw.errors import (
    DownloadError,
    InvalidGGUFError,
    ModelCoolingDownError,
    ModelFileError,
    ModelNotFoundError,
    ModelUnloadedError,
    QueueTimeoutError,
)
from llm_router_mw.hub import Hub
from llm_router_mw.hub_reference import parse_reference
from llm_router_mw.router import running
from llm_router_mw.router.warmth import Warmth
from llm_router_mw.types import InstanceState
from tests.support.answers import chat_body
from tests.support.fake_hub import FakeHub
from tests.support.memory_pool import MARGIN_MIB, POOL_UNITS, UNIT, Pool
from tests.support.processes import until as patiently
from tests.support.real_router import JumpingClock, Story, reached, real_router, say, state, view
from tests.support.served import served
from tests.support.tiny_models import write_tiny_llama
from tests.support.waiting import until

REPO, NAME = "owner/tiny-GGUF", "tiny-Q4_K_M.gguf"
MODELS: dict[str, Any] = {"tiny": {"hf_repo": f"{REPO}:Q4_K_M"}}
DOWNLOADING, UNLOADED = InstanceState.DOWNLOADING, InstanceState.UNLOADED
LOADED, FAILED = InstanceState.LOADED, InstanceState.FAILED


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that says hello, with weights of nine megabytes."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    return write_tiny_llama(path, says=("Hello", " wor", "ld"), n_embd=512).read_bytes()


@pytest.fixture
def hub(hub: FakeHub, tiny: bytes) -> FakeHub:
    """A hub with one model, and an empty cache."""
    hub.add(REPO, NAME, tiny)
    return hub


@pytest.mark.asyncio
async def test_a_model_is_downloaded_when_it_is_asked_for_and_then_answers(hub: FakeHub) -> None:
    story = Story()
    async with real_router(story, models=MODELS) as router:
        assert hub.asked == []  # nothing is asked before somebody wants it
        assert view(router, "tiny").status == "unloaded"
        assert "Hello" in await say(router, "tiny")
        assert story.happened_in_order(
            ("tiny", DOWNLOADING), ("tiny", UNLOADED), ("tiny", InstanceState.LOADING)
        )
        found = view(router, "tiny")
        assert (found.state, found.progress) == (LOADED, None)
        assert found.model.source == "hub"
        assert found.model.path == f"hf://{REPO}:Q4_K_M"
    # Its header, and then the model.
    assert hub.count("cdn") == 2
    asked = len(hub.asked)
    async with real_router(models=MODELS, offline=True) as router:
        assert "Hello" in await say(router, "tiny")
    assert len(hub.asked) == asked


@pytest.mark.asyncio
async def test_a_download_is_seen_and_holds_no_memory(hub: FakeHub, tiny: bytes) -> None:
    story = Story()
    hub.hold_at = len(tiny) // 2
    async with real_router(story, models=MODELS, models_max=1) as router:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(say, router, "tiny")
            await reached(router, "tiny", DOWNLOADING)
            await until(lambda: (view(router, "tiny").progress or 0) > 0.2)
            found = view(router, "tiny")
            assert found.status == "downloading"
            assert found.memory == {}
            assert (found.waiting, found.expected_wait_seconds) == (1, None)
            hub.go_on.set()
        told = [event for event in story.events if event.kind == "progress" and event.state]
        assert {event.state for event in told} == {DOWNLOADING}
        values = [event.data["value"] for event in told]
        assert values == sorted(values)


@pytest.mark.asyncio
async def test_many_requests_cause_one_download(hub: FakeHub) -> None:
    story = Story()
    async with real_router(story, models=MODELS) as router, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(say, router, "tiny")
    assert story.count(DOWNLOADING) == 1
    assert hub.count("cdn") == 2


@pytest.mark.asyncio
async def test_others_are_served_until_it_is_here_and_only_then_make_room(
    hub: FakeHub, tiny: bytes, letters: Path
) -> None:
    hub.hold_at = len(tiny) // 2
    models = {**MODELS, "a": str(letters / "a.gguf")}
    story = Story()
    async with real_router(story, models=models, models_max=1) as router:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(say, router, "tiny")
            await reached(router, "tiny", DOWNLOADING)
            await say(router, "a")
            assert state(router, "tiny") is DOWNLOADING
            assert story.evicted() == []
            hub.go_on.set()
        assert state(router, "tiny") is LOADED
        assert story.evicted() == ["a"]


def test_what_can_never_fit_is_refused_before_it_is_downloaded(
    hub: FakeHub, sized_models: dict[str, dict[str, str]]
) -> None:
    huge = Path(sized_models["huge"]["path"])
    hub.add("owner/huge", "huge-Q8_0.gguf", huge)
    models = {"huge": {"hf_repo": "owner/huge"}}
    with served(
        plugins=(Pool(),), models=models, models_memory_margin=MARGIN_MIB, n_batch=64
    ) as server:
        answer = server.http.post("/v1/chat/completions", json=chat_body("huge"))
        assert answer.status_code == 507
        (device,) = answer.json()["error"]["devices"].values()
        assert device["needed_bytes"] > 150 * UNIT
        assert device["available_bytes"] < POOL_UNITS * UNIT
        assert server.view("huge").status == "unloaded"
    assert hub.count("cdn") == 1
    assert hub.sent_bytes <= 1024**2 < huge.stat().st_size


@pytest.mark.asyncio
async def test_files_that_are_gone_from_the_cache_are_downloaded_again(
    hub: FakeHub, tmp_path: Path
) -> None:
    async with real_router(models=MODELS) as router:
        await say(router, "tiny")
        await router.unload("tiny")
        await anyio.to_thread.run_sync(shutil.rmtree, tmp_path / "hub-cache")
        assert "Hello" in await say(router, "tiny")
        assert hub.count("cdn") == 3


@pytest.mark.asyncio
async def test_files_that_came_by_other_means_are_not_downloaded(hub: FakeHub) -> None:
    async with real_router(models=MODELS) as router:
        running = router._running
        assert running is not None
        key = view(router, "tiny").model.instance_key
        await running.conductor.know_price(key)
        await Hub(os.environ).download(parse_reference(REPO), lambda done, total: None)
        sent = hub.sent_bytes
        assert "Hello" in await say(router, "tiny")
        assert hub.sent_bytes == sent


# Trouble


@pytest.mark.asyncio
async def test_what_is_no_model_is_told_before_it_is_downloaded(hub: FakeHub) -> None:
    hub.add("owner/web", "page-Q8_0.gguf", b"<html>" + bytes(20 * 1024**2))
    async with real_router(models={"page": {"hf_repo": "owner/web"}}) as router:
        with pytest.raises(InvalidGGUFError, match=r"page-Q8_0\.gguf is not a well-formed GGUF"):
            await say(router, "page")
        assert state(router, "page") is UNLOADED
    assert hub.sent_bytes <= 1024**2


def test_a_download_that_was_killed_goes_on_where_it_was(
    hub: FakeHub, tiny: bytes, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "llm_router_mw.cli", "serve", "-hf", REPO, "--download-only"]
    hub.hold_at = len(tiny) - 1000
    with subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE) as killed:
        assert hub.holding.wait(30)
        blobs = tmp_path / "hub-cache" / "models--owner--tiny-GGUF" / "blobs"
        patiently(lambda: any(file.stat().st_size for file in blobs.iterdir()), "some bytes")
        killed.kill()
    hub.hold_at = None
    hub.go_on.set()
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:5] == ["model", "state", "size", REPO, "downloaded"]
    first, second = (each.headers["range"] for each in hub.asked if each.what == "cdn")
    assert first == "bytes=0-"
    assert second != first


@pytest.mark.asyncio
async def test_a_failed_download_is_told_and_not_tried_again_at_once(hub: FakeHub) -> None:
    story, clock = Story(), JumpingClock()
    async with real_router(story, models=MODELS, clock=clock) as router:
        hub.damages_from = 1024**2  # its header is before
        with pytest.raises(DownloadError, match="arrived damaged"):
            await say(router, "tiny")
        assert state(router, "tiny") is FAILED
        assert "arrived damaged" in (view(router, "tiny").error or "")
        asked = len(hub.asked)
        with pytest.raises(ModelCoolingDownError, match="arrived damaged") as caught:
            await say(router, "tiny")
        assert 5 < (caught.value.retry_after_seconds or 0) <= 10
        assert len(hub.asked) == asked
        hub.damages_from = None
        clock.jump(11)
        assert "Hello" in await say(router, "tiny")
        assert view(router, "tiny").error is None


@pytest.mark.asyncio
async def test_a_hub_that_does_not_tell_is_not_asked_again_at_once(hub: FakeHub) -> None:
    clock = JumpingClock()
    hub.answers["refs"] = b"{}"
    async with real_router(models=MODELS, clock=clock) as router:
        for _ in range(3):
            with pytest.raises(DownloadError, match="does not say what is in"):
                await say(router, "tiny")
        assert len(hub.asked) == 1
        hub.answers.clear()
        clock.jump(11)
        assert "Hello" in await say(router, "tiny")


@pytest.mark.asyncio
async def test_a_download_goes_on_when_those_who_wait_have_left(hub: FakeHub, tiny: bytes) -> None:
    hub.hold_at = len(tiny) // 2
    async with real_router(models=MODELS) as router:
        with pytest.raises(QueueTimeoutError, match=r"'tiny' could not be downloaded .* goes on"):
            await say(router, "tiny", timeout_seconds=1.5)
        assert state(router, "tiny") is DOWNLOADING
        hub.go_on.set()
        await reached(router, "tiny", UNLOADED)
        assert "Hello" in await say(router, "tiny")
    assert hub.count("cdn") == 2


@pytest.mark.asyncio
async def test_one_that_is_stopped_by_hand_goes_on_at_the_next_request(
    hub: FakeHub, tiny: bytes
) -> None:
    hub.hold_at = len(tiny) // 2
    async with real_router(models=MODELS) as router:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(ModelUnloadedError, match="download of model 'tiny' was stop"):
                    await say(router, "tiny")

            tasks.start_soon(ask)
            await until(lambda: (view(router, "tiny").progress or 0) > 0.2)
            assert await router.unload("tiny")
        assert state(router, "tiny") is UNLOADED
        hub.hold_at = None
        hub.go_on.set()
        assert "Hello" in await say(router, "tiny")
    last = [each.headers["range"] for each in hub.asked if each.what == "cdn"][-1]
    assert last not in ("bytes=0-", "bytes=0-1048575")


@pytest.mark.asyncio
async def test_one_that_the_end_of_the_router_has_cut_off_goes_on_in_the_next(
    hub: FakeHub, tiny: bytes
) -> None:
    hub.hold_at = len(tiny) // 2
    async with real_router(models=MODELS) as router:
        await router.load("tiny", wait=False)
        await until(lambda: (view(router, "tiny").progress or 0) > 0.2)
    hub.hold_at = None
    hub.go_on.set()
    sent = hub.sent_bytes
    async with real_router(models=MODELS) as router:
        assert "Hello" in await say(router, "tiny")
    assert hub.sent_bytes - sent < len(tiny) + 1024**2


@pytest.mark.asyncio
async def test_offline_says_what_is_missing(hub: FakeHub) -> None:
    async with real_router(models=MODELS, offline=True) as router:
        with pytest.raises(ModelFileError, match=f"{REPO}:Q4_K_M is not in the hub's cache"):
            await say(router, "tiny")
        assert state(router, "tiny") is UNLOADED
    assert hub.asked == []


# What requests may name


@pytest.mark.asyncio
async def test_requests_cannot_name_paths_addresses_or_other_repositories(
    hub: FakeHub, tmp_path: Path, tiny: bytes
) -> None:
    file = await anyio.Path(tmp_path / "other.gguf").write_bytes(tiny)
    assert file
    hub.add("owner/other", "other-Q4_K_M.gguf", tiny)
    names = [
        f"hf://{REPO}:Q4_K_M",
        f"{REPO}:Q4_K_M",
        "owner/other",
        "hf://owner/other",
        f"{hub.address}/{REPO}/resolve/main/{NAME}",
        str(tmp_path / "other.gguf"),
        "other.gguf",
        f"file://{tmp_path}/other.gguf",
        "tiny/../../other",
    ]
    async with real_router(models=MODELS) as router:
        for name in names:
            with pytest.raises(ModelNotFoundError):
                await say(router, name)
            with pytest.raises(ModelNotFoundError):
                await router.load(name)
    assert hub.asked == []


@pytest.mark.asyncio
async def test_its_conversations_can_be_purged_by_its_name(hub: FakeHub) -> None:
    async with real_router(models=MODELS, n_ctx=2048) as router:
        async with router.acquire("tiny") as lease:
            messages = [{"role": "user", "content": "A long story. " * 40}]
            await lease.chat(messages, max_tokens=4)
        await router.sleep("tiny")
        assert len(await router.cached()) == 1
        assert (await router.purge_cache("tiny")).snapshots == 1
        assert await router.cached() == ()


@pytest.mark.asyncio
async def test_its_file_is_kept_warm_while_it_sleeps(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Callable[[], Iterable[str]]] = []

    class Watched(Warmth):
        def __init__(self, sleeping: Callable[[], Iterable[str]], room: Callable[[], int]) -> None:
            asked.append(sleeping)
            super().__init__(sleeping, room)

    monkeypatch.setattr(running, "Warmth", Watched)
    async with real_router(models=MODELS, warm_weights=True) as router:
        await say(router, "tiny")
        await router.sleep("tiny")
        [path] = asked[0]()
        assert os.path.basename(path) == NAME
