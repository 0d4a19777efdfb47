"""The longest context that fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from llm_router_mw.memory.fit import largest_context
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.pools import by_pool
from llm_router_mw.types import Device, Model, Placement
from tests.support.model_headers import write_sparse

MIB = 1024**2
FULL = Placement(devices=("a",), n_gpu_layers=-1, split_mode="layer")


def device(name: str, pool: str) -> Device:
    return Device(id=name, pool=pool, kind="cuda", name=name, total_bytes=1, free_bytes=1)


OWN = (device("a", "a"), device("host", "host"))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    path = write_sparse(tmp_path / "m.gguf", metadata={"context_length": 131_072})
    return Model(id="m", path=str(path), source="test")


def needed(model: Model, n_ctx: int, devices: tuple[Device, ...] = OWN) -> dict[str, int]:
    placement = structs.replace(FULL, n_ctx=n_ctx)
    return by_pool(MetadataEstimator().estimate(model, placement, devices).upper, devices)


@pytest.mark.parametrize("n_ctx", [256, 4096, 50_176, 131_072])
def test_it_is_the_last_one_that_fits(model: Model, n_ctx: int) -> None:
    room = needed(model, n_ctx)
    assert largest_context(model, FULL, OWN, room) == n_ctx
    assert largest_context(model, FULL, OWN, {**room, "a": room["a"] - 1}) == n_ctx - 256


def test_it_is_no_longer_than_the_model_was_trained_for(model: Model) -> None:
    assert largest_context(model, FULL, OWN, {}) == 131_072


def test_nothing_may_fit(model: Model) -> None:
    assert largest_context(model, FULL, OWN, {"a": 100 * MIB}) == 0


def test_devices_may_draw_from_one_pool(model: Model) -> None:
    unified = (device("a", "host"), device("host", "host"))
    apart = needed(model, 4096)
    assert needed(model, 4096, unified) == {"host": apart["a"] + apart["host"]}
    assert largest_context(model, FULL, unified, needed(model, 4096, unified)) == 4096


def test_a_device_that_nobody_knows_is_a_pool_of_its_own(model: Model) -> None:
    assert set(needed(model, 256, ())) == {"a", "host"}
