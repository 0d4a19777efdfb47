"""What can never fit, and what nobody can tell the size of."""

from __future__ import annotations

import logging

import pytest

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins import estimators
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.memory.dry_run import DryRunEstimator
from llm_router_mw.memory.placement import AutoPlacement
from llm_router_mw.protocols import Estimator
from llm_router_mw.types import HOST, InstanceState
from tests.support.answers import ask, chat_body
from tests.support.memory_pool import (
    MARGIN_MIB,
    MARGIN_UNITS,
    POOL_UNITS,
    UNIT,
    Pool,
    needed_units,
    pooled_router,
)
from tests.support.real_router import LONG_SECONDS, Story, reached, say, state, view
from tests.support.served import served
from tests.support.waiting import until

Models = dict[str, dict[str, str]]


def test_what_can_never_fit_is_refused_at_once_and_nobody_leaves_for_it(
    sized_models: Models,
) -> None:
    story = Story()
    models = {name: sized_models[name] for name in ("medium", "huge")}
    with served(
        plugins=(Pool(), story), models=models, models_memory_margin=MARGIN_MIB, n_batch=64
    ) as server:
        ask(server.http, "medium", max_tokens=2)
        answer = server.http.post("/v1/chat/completions", json=chat_body("huge"))
        assert answer.status_code == 507
        error = answer.json()["error"]
        assert error["code"] == "model_too_large"
        assert list(error["devices"]) == [HOST]
        needed, available = (
            error["devices"][HOST][name] / UNIT for name in ("needed_bytes", "available_bytes")
        )
        assert 150 < needed < 175
        # What is taken by the model that is loaded could be had.
        assert POOL_UNITS - 15 < available < POOL_UNITS
        assert story.evicted() == []
        assert story.loads("huge") == 0
        assert server.view("medium").status == "loaded"


@pytest.fixture
def nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all estimators away."""

    @hookimpl
    def none(config: RouterConfig) -> list[Estimator]:
        return []

    monkeypatch.setattr(estimators, "llm_router_register_estimators", none)


@pytest.mark.asyncio
@pytest.mark.usefixtures("nobody_can_tell")
class TestWithoutAnEstimate:
    async def test_limits_do_not_apply_and_a_warning_says_so(
        self, sized_models: Models, caplog: pytest.LogCaptureFixture
    ) -> None:
        story, pool, models = Story(), Pool(units=60), {"giant": sized_models["giant"]}
        with caplog.at_level(logging.WARNING):
            async with pooled_router(pool, story, models=models) as router:
                await say(router, "giant")
                assert view(router, "giant").memory[HOST] > pool.total_bytes
                # Its pages are mapped: the margin is free, whatever they add up to.
                seen = pool.looks
                await until(lambda: pool.looks > seen + 2, LONG_SECONDS)
                assert state(router, "giant") is InstanceState.LOADED
                pool.eaten_bytes = (60 - MARGIN_UNITS) * UNIT
                await reached(router, "giant", InstanceState.UNLOADED)
                assert story.evicted() == ["giant"]
        assert "giant: nobody can tell how much memory it needs; limits do not apply" in caplog.text

    async def test_it_is_refused_if_an_estimate_is_required(self, sized_models: Models) -> None:
        story, models = Story(), {"embedding": sized_models["embedding"]}
        async with pooled_router(Pool(), story, models=models, require_estimate=True) as router:
            with pytest.raises(ModelLoadError, match="require_estimate"):
                await say(router, "embedding")
        assert story.loads() == 0


@pytest.mark.asyncio
async def test_what_models_need_may_be_asked_of_llama_before_anybody_wants_them(
    sized_models: Models,
) -> None:
    story, models = Story(), {"medium": sized_models["medium"]}
    async with pooled_router(Pool(), story, models=models, dry_runs="always") as router:
        [estimator] = [
            each
            for each in router._registry.estimators.values()
            if isinstance(each, DryRunEstimator)
        ]
        model = view(router, "medium").model
        (placement,) = AutoPlacement().place(model, ())
        await until(lambda: estimator.is_prepared(model, placement, ()), LONG_SECONDS)
        estimate = estimator.estimate(model, placement, ())
        assert estimate is not None
        await say(router, "medium")
        assert needed_units(story, "medium") == estimate.upper[HOST] / UNIT
        # Its memory has been given back.
        assert router._running is not None
        assert router._running.scheduler.ledger.charge_of("dry-run") == {}
