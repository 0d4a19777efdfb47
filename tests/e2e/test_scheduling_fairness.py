"""Nobody waits for ever, and nothing is swapped without need: real workers under contention."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from llm_router_mw import Router
from llm_router_mw.errors import ClientStalledError
from llm_router_mw.types import ChatTask, FinishDelta, InstanceState
from llm_router_mw.wire import INITIAL_CREDIT
from tests.support.real_router import (
    HELLO,
    LONG_SECONDS,
    Story,
    reached,
    real_router,
    say,
    state,
    talk,
    view,
    waits,
)
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


class RelayRace:
    """Clients that hand a model on so that it is never idle, as long as it takes requests."""

    def __init__(self, router: Router, model: str) -> None:
        self.served = 0
        self.over = False
        self._router = router
        self._model = model

    async def run(self) -> None:
        while not self.over:
            async with self._router.acquire(self._model) as lease:
                self.served += 1
                mine = self.served
                await talk(lease)
                await self._handed_on(mine)

    async def _handed_on(self, mine: int) -> None:
        """Return when another client has the model too, or may have it no more."""

        def may_let_go() -> bool:
            loaded = state(self._router, self._model) is InstanceState.LOADED
            return self.over or self.served > mine or not loaded

        await until(may_let_go, LONG_SECONDS)


async def test_a_hot_model_does_not_starve_another(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=1, max_wait_seconds=0.3) as router:
        race = RelayRace(router, "a")
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(race.run)
            await until(lambda: race.served >= 3, LONG_SECONDS)
            async with router.acquire("b") as lease:
                until_then = race.served
                await talk(lease)
            # And neither does the one that had to give way.
            await until(lambda: race.served > until_then, LONG_SECONDS)
            race.over = True
        drained = story.why("a", InstanceState.DRAINING)
        assert "waited long enough" in drained
        assert story.count(InstanceState.LOADED, "b") == 1


async def test_a_busy_model_drains_for_one_that_has_waited_long_enough(letters: Path) -> None:
    story = Story()
    async with (
        real_router(story, models_dir=letters, models_max=1, max_wait_seconds=0.2) as router,
        anyio.create_task_group() as tasks,
    ):
        async with router.acquire("a") as lease:
            stream = lease.stream(ChatTask(messages=tuple(HELLO), max_tokens=400))
            last = await anext(stream)
            tasks.start_soon(say, router, "b")
            await reached(router, "a", InstanceState.DRAINING)
            tasks.start_soon(say, router, "a")
            await waits(router, "a")
            assert view(router, "a").leases == 1
            async for delta in stream:
                last = delta
            # What was under way came to its end all the same.
            assert isinstance(last, FinishDelta)
            assert last.reason == "length"
        await until(lambda: story.count(InstanceState.LOADED, "a") == 2, LONG_SECONDS)
    order = [change for change in story.changes if change[1] is InstanceState.LOADED]
    assert [model for model, _ in order] == ["a", "b", "a"]


async def test_an_answer_that_nobody_reads_does_not_hold_up_a_drain(letters: Path) -> None:
    async with real_router(models_dir=letters, models_max=1, max_wait_seconds=0.2) as router:
        lease = await router.lease("a")
        task = ChatTask(messages=tuple(HELLO), max_tokens=INITIAL_CREDIT // 2)
        unread = lease.stream(task, release=True)
        # The worker is done with it, so it holds nothing.
        assert await say(router, "b")
        deltas = [delta async for delta in unread]
        assert isinstance(deltas[-1], FinishDelta)
        assert deltas[-1].reason == "length"


async def test_a_reader_that_stalls_is_cut_off_rather_than_hold_up_a_drain(letters: Path) -> None:
    story = Story()
    async with real_router(
        story,
        models_dir=letters,
        models_max=1,
        n_ctx=4096,
        max_wait_seconds=0.2,
        client_stall_seconds=0.5,
    ) as router:
        lease = await router.lease("a")
        stalled = lease.stream(ChatTask(messages=tuple(HELLO), max_tokens=3000), release=True)
        await anext(stalled)
        assert await say(router, "b")
        assert story.happened_in_order(("a", InstanceState.DRAINING), ("b", InstanceState.LOADING))
        with pytest.raises(ClientStalledError):
            async for _ in stalled:
                pass


async def test_clients_that_alternate_share_the_swaps(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=1, max_wait_seconds=120) as router:

        async def alternate(models: str) -> None:
            for model in models:
                assert await say(router, model)

        async with anyio.create_task_group() as tasks:
            for models in ("abab", "baba") * 3:
                tasks.start_soon(alternate, models)
    # Five phases are the fewest possible: a, b, a, b, a.
    assert story.loads() <= 6
