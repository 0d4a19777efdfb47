"""While a set's time lasts its models stay together, and others make room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_router_mw import Router
from llm_router_mw.errors import ConfigError
from llm_router_mw.testing import (
    FakeDevices,
    FakeEngine,
    check_eviction_policy,
    check_placement_policy,
)
from llm_router_mw.types import Device, Model, Placement
from llm_router_mw_warmset import WarmsetPlugin
from llm_router_mw_warmset import preload as module
from llm_router_mw_warmset.options import WarmSet
from llm_router_mw_warmset.policies import WarmsetEviction, WarmsetPlacement
from llm_router_mw_warmset.preload import preloading
from llm_router_mw_warmset.schedule import Schedule

MakeRouter = Callable[..., Router]
SATURDAY_NOON = datetime(2026, 1, 31, 12)
OFFICE = WarmSet(models=("a", "b"), begins="08:00", ends="18:00", days="mon-fri")
NIGHT = WarmSet(models=("giant",), begins="22:00", ends="6:00", days="fri")
ALWAYS = WarmSet(models=("a", "b"), devices=("gpu-0",))


class Now:
    """A clock on the wall, that a test sets."""

    def __init__(self, time: datetime = SATURDAY_NOON) -> None:
        self.time = time

    def __call__(self) -> datetime:
        return self.time


def active(each: WarmSet, *when: int) -> bool:
    return bool(Schedule({"it": each}, lambda: datetime(2026, 1, *when)).active())


def test_a_set_has_its_hours_and_days() -> None:
    assert active(OFFICE, 30, 8, 0)  # a Friday
    assert active(OFFICE, 30, 17, 59)
    assert not active(OFFICE, 30, 18, 0)
    assert not active(OFFICE, 30, 7, 59)
    assert not active(OFFICE, 31, 12, 0)


def test_a_set_that_ends_before_it_begins_goes_over_midnight() -> None:
    assert active(NIGHT, 30, 23, 0)
    assert active(NIGHT, 31, 5, 59)
    assert not active(NIGHT, 31, 6, 0)
    assert not active(NIGHT, 30, 3, 0)
    assert not active(NIGHT, 31, 23, 0)


def test_a_set_without_hours_is_always_there() -> None:
    assert all(active(ALWAYS, day, hour) for day in range(1, 8) for hour in (0, 12, 23))


@pytest.mark.parametrize(
    ("days", "found"),
    [("mon-fri", {0, 1, 2, 3, 4}), ("sat, mon", {5, 0}), ("sat-mon", {5, 6, 0}), ("WED", {2})],
)
def test_days_are_names_and_ranges(days: str, found: set[int]) -> None:
    assert WarmSet(models=(), days=days).weekdays() == found


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"begins": "8"}, "no time"),
        ({"ends": "24:00"}, "no time"),
        ({"days": "monday"}, "no day"),
        ({"hours": 1}, "unknown field"),
    ],
)
def test_what_is_wrong_is_said_at_start_up(
    wrong: dict[str, Any], why: str, make_llm_router: MakeRouter
) -> None:
    sets = {"office": {"models": ["a"], **wrong}}
    with pytest.raises(ConfigError, match=why):
        make_llm_router(plugin_options={"warmset": {"sets": sets}})


def test_the_policies_conform(tmp_path: Path) -> None:
    schedule = Schedule({"always": ALWAYS}, Now())
    check_eviction_policy(WarmsetEviction(schedule))
    check_placement_policy(WarmsetPlacement(schedule, TwoPlaces()), tmp_path)


class TwoPlaces:
    """A policy that knows each GPU, and the host as a worse place."""

    name = "two"

    def place(self, model: Model, devices: Sequence[Device]) -> list[Placement]:
        gpus = [device.id for device in devices if device.kind != "host"]
        places = [Placement(devices=(gpu,), n_gpu_layers=-1) for gpu in gpus]
        return [*places, Placement(degraded=bool(places))]


def test_others_keep_off_the_devices_of_a_set() -> None:
    devices = FakeDevices({"gpu-0": 100, "gpu-1": 100}).inventory()
    policy = WarmsetPlacement(Schedule({"always": ALWAYS}, Now()), TwoPlaces())

    def places(model: str) -> list[tuple[str, ...]]:
        placed = policy.place(Model(id=model, path="/m", source="test"), devices)
        return [each.devices for each in placed]

    assert places("a") == [("gpu-0",), ("gpu-1",), ()]
    assert places("other") == [("gpu-1",), ("gpu-0",), ()]


@pytest.mark.asyncio
async def test_others_make_room_first_while_the_time_lasts(make_llm_router: MakeRouter) -> None:
    sets = {"always": {"models": ["a"], "preload": False}}
    options = {"plugin_options": {"warmset": {"sets": sets}}, "eviction_policy": "warmset"}
    async with make_llm_router(models_max=2, **options) as router:
        for name in ("a", "b", "c"):  # under LRU a would go for c
            await router.load(name)
        assert {view.id for view in router.models() if view.status == "loaded"} == {"a", "c"}


@pytest.mark.asyncio
async def test_the_models_of_a_set_are_loaded_when_its_time_begins(
    make_llm_router: MakeRouter,
    llm_router_engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    now = Now(datetime(2026, 1, 30, 7, 59))
    unknown = WarmSet(models=("nobody", "c"), begins="09:00", ends="10:00")
    schedule = Schedule({"office": OFFICE, "unknown": unknown}, now)
    async with make_llm_router() as router, preloading(router, schedule):
        await anyio.sleep(0.05)
        assert llm_router_engine.loads == []
        now.time = datetime(2026, 1, 30, 8, 0)
        await _until(lambda: sorted(llm_router_engine.loads) == ["a", "b"])
        now.time = datetime(2026, 1, 30, 9, 0)
        await _until(lambda: sorted(llm_router_engine.loads) == ["a", "b", "c"])


async def _until(reached: Callable[[], bool]) -> None:
    for _ in range(500):
        if reached():
            return
        await anyio.sleep(0.01)
    raise AssertionError("it was not reached")


def test_without_sets_nothing_runs() -> None:
    assert WarmsetPlugin().llm_router_lifespan(router=None) is None  # type: ignore[arg-type]
