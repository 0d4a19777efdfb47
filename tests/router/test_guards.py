"""Guards: nothing passes one that refuses or fails, and each learns once what it has let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llm_router_mw import Router
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import GuardFailedError, ModelLoadError, PermissionDeniedError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import GuardedRequest, RequestGuard, RequestOutcome
from llm_router_mw.router import guards as module
from llm_router_mw.testing import FakeEngine
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

HELLO = [{"role": "user", "content": "hello"}]
MakeRouter = Callable[..., Router]


class Guard:
    """A guard, and the plugin that supplies it; raises what it is told to."""

    def __init__(self, name: str = "guard", error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.after_error: Exception | None = None
        self.hang = False
        self.asked: list[GuardedRequest] = []
        self.told: list[tuple[GuardedRequest, RequestOutcome]] = []

    async def before(self, request: GuardedRequest) -> None:
        self.asked.append(request)
        if self.hang:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error

    async def after(self, request: GuardedRequest, outcome: RequestOutcome) -> None:
        self.told.append((request, outcome))
        if self.after_error is not None:
            raise self.after_error

    @hookimpl
    def llm_router_register_request_guards(self, config: RouterConfig) -> list[RequestGuard]:
        return [self]

    async def outcome(self) -> RequestOutcome:
        """Return the one outcome that the guard is told."""
        await until(lambda: bool(self.told))
        await anyio.lowlevel.checkpoint()
        [(request, outcome)] = self.told
        assert request == self.asked[0]
        return outcome


async def test_a_request_that_passes_is_told_with_what_it_used(
    make_llm_router: MakeRouter,
) -> None:
    guard = Guard()
    async with make_llm_router(guard) as router:
        async with router.acquire("a") as llm:
            assert guard.told == []
            for _ in range(2):
                await llm.chat(HELLO)
        outcome = await guard.outcome()
    assert guard.asked == [GuardedRequest(id=1, models=("a",))]
    assert outcome.status == "served"
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (2, 4)


async def test_models_that_are_taken_together_are_one_request(make_llm_router: MakeRouter) -> None:
    guard = Guard()
    async with make_llm_router(guard) as router:
        async with router.acquire("a", "b", priority=3) as (first, second):
            await first.chat(HELLO)
            await second.chat(HELLO)
        assert (await guard.outcome()).usage.total_tokens == 6
    [request] = guard.asked
    assert (request.models, request.priority) == (("a", "b"), 3)


async def test_a_refusal_costs_nothing_and_is_what_the_client_sees(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    guard = Guard(error=PermissionDeniedError("your budget is used up"))
    async with make_llm_router(guard) as router:
        with pytest.raises(PermissionDeniedError, match="used up"):
            await router.lease("a")
    assert llm_router_engine.loads == []
    assert guard.told == []


async def test_who_let_a_request_pass_is_told_if_another_refuses_it(
    make_llm_router: MakeRouter,
) -> None:
    # Who is given later is asked earlier.
    later, earlier = Guard("later", PermissionDeniedError("no")), Guard("earlier")
    async with make_llm_router(later, earlier) as router:
        with pytest.raises(PermissionDeniedError):
            await router.lease("a")
        outcome = await earlier.outcome()
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert outcome.failure.message == "no"
    assert later.told == []


@pytest.mark.parametrize("hang", [True, False])
async def test_a_guard_that_fails_lets_nobody_pass(
    hang: bool, make_llm_router: MakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEFORE_SECONDS", 0.05)
    guard = Guard(error=ZeroDivisionError("my bug"))
    guard.hang = hang
    async with make_llm_router(guard) as router:
        with pytest.raises(GuardFailedError) as caught:
            await router.lease("a")
        assert router._registry.faults.counts == {"request guard 'guard'": 1}
    assert "my bug" not in caught.value.message


async def test_a_load_that_fails_is_told(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    llm_router_engine.broken["a"] = ModelLoadError("broken file")
    guard = Guard()
    async with make_llm_router(guard) as router:
        with pytest.raises(ModelLoadError):
            await router.lease("a")
        outcome = await guard.outcome()
    assert outcome.failure is not None
    assert outcome.failure.message == "broken file"


async def test_a_client_that_leaves_the_queue_is_told(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    llm_router_engine.slow.add("a")
    guard = Guard()
    async with make_llm_router(guard) as router:
        with anyio.move_on_after(0.05):
            await router.lease("a")
        outcome = await guard.outcome()
    assert outcome.failure is not None
    assert outcome.failure.kind == "RequestLeftError"


async def test_an_answer_that_is_cut_off_is_told_when_the_worker_is_done(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    llm_router_engine.hold = True
    guard = Guard()
    async with make_llm_router(guard) as router:
        async with router.acquire("a") as llm:
            with anyio.move_on_after(0.05):
                await llm.chat(HELLO)
        assert (await guard.outcome()).status == "served"


async def test_a_guard_that_fails_afterwards_hurts_nobody(make_llm_router: MakeRouter) -> None:
    guard, other = Guard("guard"), Guard("other")
    guard.after_error = ZeroDivisionError("my bug")
    async with make_llm_router(guard, other) as router:
        async with router.acquire("a"):
            pass
        await guard.outcome()
        await other.outcome()
        assert router._registry.faults.counts == {"request guard 'guard'": 1}


async def test_what_was_used_is_told_when_the_router_closes(make_llm_router: MakeRouter) -> None:
    guard = Guard()
    async with make_llm_router(guard) as router:
        await router.lease("a")
    assert (await guard.outcome()).status == "served"


async def test_requests_have_numbers_of_their_own(make_llm_router: MakeRouter) -> None:
    guard = Guard()
    async with make_llm_router(guard) as router:
        for _ in range(3):
            async with router.acquire("a"):
                pass
    assert [request.id for request in guard.asked] == [1, 2, 3]
    assert sorted(request.id for request, _ in guard.told) == [1, 2, 3]


async def test_who_has_no_guards_pays_nothing(make_llm_router: MakeRouter) -> None:
    async with make_llm_router() as router:
        lease: Any = await router.lease("a")
        assert lease._on_over is None
