"""The router in blocking verbs, as synchronous apps use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from llm_router_mw.errors import ModelNotFoundError, RouterNotRunningError
from llm_router_mw.router import Router, RouterThread, SyncRouter
from llm_router_mw.testing import FakePlugin
from llm_router_mw.types import ChatTask, ContentDelta, FinishDelta, InstanceState, Purged
from tests.support.processes import until

HELLO = [{"role": "user", "content": "hello"}]
TASK = ChatTask(messages=({"role": "user", "content": "hello"},))


@pytest.fixture
def plugin(tmp_path: Path) -> FakePlugin:
    return FakePlugin(tmp_path)


@pytest.fixture
def thread(plugin: FakePlugin) -> Iterator[RouterThread]:
    made = RouterThread(Router(plugins=[plugin], engine="fake"))
    yield made
    made.stop()


@pytest.fixture
def router(thread: RouterThread) -> SyncRouter:
    return SyncRouter(thread)


def leases(router: SyncRouter) -> int:
    return sum(view.leases for view in router.models())


def test_the_first_use_starts_the_thread(router: SyncRouter, thread: RouterThread) -> None:
    assert not thread.router.running
    assert [view.id for view in router.models()] == ["a", "b", "c"]
    assert thread.router.running


def test_a_model_is_held_for_a_block_and_answers_in_it(router: SyncRouter) -> None:
    with router.acquire("a") as llm:
        assert (llm.model, llm.info.n_ctx) == ("a", 128)
        assert llm.chat(HELLO, max_tokens=5).text == "echo: hello"
        assert llm.complete("once").text == "echo: once"
        assert llm.embed(["x", "y"]).vectors == ((1.0, 0.0), (1.0, 0.0))
        assert leases(router) == 1
    assert leases(router) == 0


def test_several_models_are_taken_at_once(router: SyncRouter) -> None:
    with router.acquire("a", "b", timeout_seconds=5.0) as (first, second):
        assert (first.model, second.model) == ("a", "b")
        assert second.chat(HELLO).text == "echo: hello"
        assert leases(router) == 2
    assert leases(router) == 0
    with pytest.raises(ModelNotFoundError), router.acquire("a", "z"):
        pass  # pragma: no cover
    assert leases(router) == 0


def test_an_error_in_the_block_comes_out_and_the_lease_is_given_back(router: SyncRouter) -> None:
    with pytest.raises(KeyError, match="mine"), router.acquire("a"):
        raise KeyError("mine")
    assert leases(router) == 0


def test_an_unknown_model_is_not_found(router: SyncRouter) -> None:
    with pytest.raises(ModelNotFoundError), router.acquire("z"):
        pass  # pragma: no cover


def test_a_stream_yields_what_comes(router: SyncRouter) -> None:
    with router.acquire("a") as llm:
        deltas = list(llm.stream(TASK))
    assert deltas[:2] == [ContentDelta("echo: "), ContentDelta("hello")]
    assert isinstance(deltas[2], FinishDelta)


def test_closing_a_stream_early_cancels_it(router: SyncRouter, plugin: FakePlugin) -> None:
    with router.acquire("a") as llm:
        stream = llm.stream(TASK)
        next(stream)
        assert not plugin.engine.latest("a").streams[0].cancelled
        stream.close()  # type: ignore[attr-defined]
        assert plugin.engine.latest("a").streams[0].cancelled
        assert llm.chat(HELLO).text == "echo: hello"


def test_models_are_loaded_and_unloaded_by_hand(router: SyncRouter) -> None:
    router.load("a")
    assert router.models()[0].state is InstanceState.LOADED
    with router.acquire("a"):
        assert not router.unload("a", wait=False)
    assert router.unload("a")
    assert router.models()[0].state is InstanceState.UNLOADED
    router.load("a", wait=False)
    assert router.models()[0].state in (InstanceState.LOADING, InstanceState.LOADED)


def test_models_sleep_and_wake_by_hand(router: SyncRouter) -> None:
    with router.acquire("a", keep_alive_seconds=60.0, timeout_seconds=5.0):
        assert not router.sleep("a", wait=False)
    assert router.sleep("a", level="context")
    assert router.models()[0].state is InstanceState.SLEEPING
    router.wake("a")
    assert router.models()[0].state is InstanceState.LOADED


def test_a_router_that_stops_in_the_middle_ends_the_use_and_not_the_leaving(
    router: SyncRouter, thread: RouterThread
) -> None:
    with router.acquire("a") as llm:
        stream = llm.stream(TASK)
        next(stream)
        thread.stop()
        with pytest.raises(RouterNotRunningError):
            llm.chat(HELLO)
        with pytest.raises(RouterNotRunningError):
            next(stream)


def test_what_there_is_can_be_looked_at(router: SyncRouter, plugin: FakePlugin) -> None:
    plugin.engine.hold = True
    assert router.overview().models_autoload
    with router.acquire("a") as llm:
        stream = llm.stream(TASK)
        reader = Thread(target=lambda: list(stream))
        reader.start()
        until(lambda: bool(router.tasks("a")), "a task of the model")
        assert router.tasks("a") == (TASK,)
        plugin.engine.latest("a").streams[0].give()
        reader.join()
    assert router.tasks("a") == ()
    assert router.cached() == ()
    assert router.purge_cache() == Purged(snapshots=0, size_bytes=0)


def test_events_are_read_as_they_come(router: SyncRouter) -> None:
    with router.events() as events:
        assert next(events).kind == "snapshot"
        router.load("a")
        assert next(each for each in events if each.state is InstanceState.LOADED).model == "a"


def test_events_end_with_the_router(router: SyncRouter, thread: RouterThread) -> None:
    with router.events() as events:
        assert next(events).kind == "snapshot"
        thread.stop()
        assert list(events) == []
