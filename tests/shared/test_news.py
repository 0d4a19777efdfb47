"""What web processes are told unasked: enough to know at any time how the router stands."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from llm_router_mw.shared import outflow as outflow_file
from llm_router_mw.shared.messages import Ask, Happened, Load, Ping, Pong, ToWeb, Views, Welcome
from llm_router_mw.shared.news import News
from llm_router_mw.testing import FakeEngine, make_router
from llm_router_mw.types import InstanceState, ModelView, RouterEvent, RouterView, Wish
from tests.support.web_process import GREET, Address, WebProcess, hosting

pytestmark = pytest.mark.asyncio


class Mirror:
    """What a web process knows by what it has heard."""

    def __init__(self, web: WebProcess, welcome: Welcome) -> None:
        self._web = web
        self.models = {view.id: view for view in welcome.models}
        self.overview = welcome.overview
        self.heard: list[ToWeb] = []

    async def hear(self) -> None:
        message = await self._web.next()
        self.heard.append(message)
        if isinstance(message, Views):
            self.overview = message.overview
        if isinstance(message, Views | Happened):
            views = message.models if isinstance(message, Views) else message.event.models
            self.models.update((view.id, view) for view in views)

    async def shows(self, address: Address) -> None:
        """Return when the router is as the mirror shows it."""
        with anyio.fail_after(10):
            while (self._models(), self.overview) != (
                address.router.models(),
                address.router.overview(),
            ):
                await self.hear()

    def _models(self) -> tuple[ModelView, ...]:
        return tuple(self.models.values())

    @property
    def kinds(self) -> list[str]:
        """Of the events."""
        return [message.event.kind for message in self.heard if isinstance(message, Happened)]

    @property
    def views(self) -> list[Views]:
        return [message for message in self.heard if isinstance(message, Views)]


async def mirror(web: WebProcess) -> Mirror:
    """Let *web* be welcomed."""
    await web.say(GREET)
    welcome = await web.next()
    assert isinstance(welcome, Welcome)
    return Mirror(web, welcome)


async def test_who_is_welcomed_is_told_how_things_stand(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await address.router.load("a")
        told = await mirror(web)
        assert tuple(told.models.values()) == address.router.models()
        assert told.models["a"].state is InstanceState.LOADED
        assert told.overview == address.router.overview()


async def test_what_happens_is_told_at_once_with_the_model_as_it_is_then(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await mirror(web)
        await address.router.load("a")
        for state in (InstanceState.LOADING, InstanceState.LOADED):
            while (event := (await web.hear(Happened)).event).kind != "status":
                pass
            assert event.state is state
            assert [(view.id, view.state) for view in event.models] == [("a", state)]


async def test_all_web_processes_are_told(tmp_path: Path) -> None:
    async with (
        hosting(tmp_path) as address,
        address.connected() as first,
        address.connected() as second,
    ):
        mirrors = [await mirror(first), await mirror(second)]
        await first.say(Load(1, "a", True))
        for each in mirrors:
            while each.models["a"].state is not InstanceState.LOADED:
                await each.hear()


async def test_what_changes_without_an_event_is_told_too_and_nothing_else(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await address.router.load("a")
        await address.router.load("b")
        told = await mirror(web)
        await web.ask("a")
        while not told.models["a"].leases:
            await told.hear()
        assert [[view.id for view in views.models] for views in told.views] == [["a"]]


async def test_many_changes_are_told_together(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await address.router.load("a")
        told = await mirror(web)
        await web.say(*(Ask(number, ("a",), Wish()) for number in range(20)))
        while told.models["a"].leases < 20:
            await told.hear()
        assert len(told.views) < 5


async def test_requests_that_wait_are_told(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.slow.add("a")
    async with hosting(tmp_path, engine) as address, address.connected() as web:
        told = await mirror(web)
        await web.ask("a")
        while told.overview != RouterView(models_max=4, models_autoload=True, waiting=1):
            await told.hear()
        await told.shows(address)
        assert told.models["a"].waiting == 1
        assert told.models["a"].progress == 0.5


async def test_what_an_event_changes_without_a_word_is_told_too(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.slow.add("a")
    async with hosting(tmp_path, engine) as address, address.connected() as web:
        told = await mirror(web)
        await address.router.load("a", wait=False)
        while told.models["a"].progress != 0.5:
            await told.hear()


async def test_an_event_that_tells_of_the_past_does_not_stay(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        told = await mirror(web)
        router = address.router
        past = replace(router.models()[0], state=InstanceState.FAILED)
        event = RouterEvent(kind="status", model="a", at_seconds=0.0, models=(past,))
        router._hub.publish(event)
        while told.models["a"].state is not InstanceState.FAILED:
            await told.hear()
        await told.shows(address)


async def test_what_cannot_be_told_is_left_out_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        told = await mirror(web)
        now = address.router.models()[0]
        for reason in ("\udce9", "an e"):  # half a character, as in a name of a file
            views = (replace(now, state=InstanceState.FAILED, error=reason),)
            event = RouterEvent(
                kind="status", model="a", at_seconds=0.0, reason=reason, models=views
            )
            address.router._hub.publish(event)
        await told.hear()
        assert told.models["a"].error == "an e"
        await told.shows(address)
    assert "an event cannot be told" in caplog.text


async def test_while_nothing_happens_nothing_is_said(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await mirror(web)
        await web.say(Ping())
        assert await web.next() == Pong()
        with anyio.move_on_after(0.3) as listened:
            await web.next()
        assert listened.cancelled_caught


async def test_who_did_not_listen_is_told_how_things_stand_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outflow_file, "_FULL_BYTES", 1000)
    async with hosting(tmp_path) as address, address.connected() as web:
        told = await mirror(web)
        for _ in range(100):  # more than the socket holds
            await address.router.load("a")
            await address.router.unload("a")
        await address.router.load("b")
        while "snapshot" not in [
            each.event.kind for each in told.heard if isinstance(each, Happened)
        ]:
            await told.hear()
        await told.shows(address)
        assert told.models["b"].state is InstanceState.LOADED


async def test_who_comes_in_the_middle_of_things_misses_none(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        told = await mirror(web)
        for model in ("a", "b", "c"):
            await web.ask(model)
            async with address.connected() as late:
                await (await mirror(late)).shows(address)
        await told.shows(address)


async def test_there_are_no_news_of_a_router_that_has_closed(tmp_path: Path) -> None:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks, make_router(tmp_path) as router:
            tasks.start_soon(News(router).run)
            await router.load("a")
