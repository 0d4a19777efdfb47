"""Where a model may go: the best place first, and nothing that the user has said is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.errors import ConfigError
from llm_router_mw.memory.placement import AutoPlacement
from llm_router_mw.protocols import PlacementPolicy
from llm_router_mw.types import HOST, Device, DeviceKind, LoadOptions, Model, Placement
from tests.support.kernel_files import GIB
from tests.support.model_headers import write_sparse

N_LAYERS = 4
TRAINED = 32_768

HOST_DEVICE = Device(
    id=HOST, pool=HOST, kind="host", name="host memory", total_bytes=64 * GIB, free_bytes=60 * GIB
)

Place = Callable[..., list[Placement]]


def gpu(name: str, free: int, total: int = 24, kind: DeviceKind = "cuda", pool: str = "") -> Device:
    return Device(
        id=name,
        pool=pool or name,
        kind=kind,
        name="GPU",
        total_bytes=total * GIB,
        free_bytes=free * GIB,
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Place a model of four layers, for which 5 placements are as many as there are layers."""
    metadata = {"context_length": TRAINED, "block_count": N_LAYERS}
    path = write_sparse(tmp_path / "m.gguf", metadata=metadata)

    def placed(*gpus: Device, margin: int = 0, **options: Any) -> list[Placement]:
        load = LoadOptions(**{"n_ctx": 512} | options)
        model = Model(id="m", path=str(path), source="test", options=load)
        return list(AutoPlacement(margin).place(model, [HOST_DEVICE, *gpus]))

    return placed


def best(placements: list[Placement]) -> list[Placement]:
    return [each for each in placements if not each.degraded]


def worse(placements: list[Placement]) -> list[Placement]:
    found = [each for each in placements if each.degraded]
    assert placements == [*best(placements), *found]
    return found


def on(*devices: str, **more: Any) -> Placement:
    options: dict[str, Any] = {"n_gpu_layers": -1, "n_ctx": 512} | more
    return Placement(devices=devices, **options)


def split(shares: dict[str, float], **more: Any) -> Placement:
    options: dict[str, Any] = {"split_mode": "layer"} | more
    return on(*shares, tensor_split=tuple(shares.values()), **options)


def test_it_is_a_policy() -> None:
    assert isinstance(AutoPlacement(), PlacementPolicy)


# Machines


def test_without_gpus_there_is_one_place(place: Place) -> None:
    assert place() == [Placement(n_ctx=512)]


def test_one_gpu_takes_all_else_a_part_else_none(place: Place) -> None:
    assert place(gpu("a", 20)) == [
        on("a"),
        on("a", n_gpu_layers=4, degraded=True),
        on("a", n_gpu_layers=3, degraded=True),
        on("a", n_gpu_layers=2, degraded=True),
        on("a", n_gpu_layers=1, degraded=True),
        Placement(n_ctx=512, degraded=True),
    ]


def test_the_emptiest_gpu_comes_first_and_several_together_last(place: Place) -> None:
    assert best(place(gpu("a", 6), gpu("b", 18))) == [
        on("b"),
        on("a"),
        split({"a": 0.25, "b": 0.75}),
        split({"a": 0.5, "b": 0.5}),  # were what is there now gone
    ]


def test_no_more_gpus_are_used_than_needed(place: Place) -> None:
    found = best(place(gpu("a", 12), gpu("b", 24), gpu("c", 18)))
    assert [each.devices for each in found if len(each.devices) != 1] == [
        ("b", "c"),
        ("b", "c"),
        ("a", "b", "c"),
        ("a", "b", "c"),
    ]


def test_equal_splits_are_proposed_once(place: Place) -> None:
    assert best(place(gpu("a", 24), gpu("b", 24)))[2:] == [split({"a": 0.5, "b": 0.5})]


def test_a_gpu_that_is_full_gets_no_share_of_what_is_free(place: Place) -> None:
    found = best(place(gpu("a", 0), gpu("b", 18)))
    assert [each for each in found if each.tensor_split] == [split({"a": 0.5, "b": 0.5})]


def test_the_margin_is_nothing_to_be_shared(place: Place) -> None:
    gpus = gpu("a", 6), gpu("b", 18)
    found = best(place(*gpus, margin=4096))
    assert found[2] == split({"a": 0.12, "b": 0.88})  # 2 GiB and 14 GiB
    assert best(place(*gpus, margin={"a": 0, "other": 7}))[2] == split({"a": 0.26, "b": 0.74})


def test_a_few_bytes_more_or_less_make_no_other_placement(place: Place) -> None:
    first = place(gpu("a", 6), gpu("b", 18))
    nudged = Device(
        id="a", pool="a", kind="cuda", name="GPU", total_bytes=24 * GIB, free_bytes=6 * GIB + 4096
    )
    assert place(nudged, gpu("b", 18)) == first


def test_several_gpus_share_what_is_left_of_the_layers(place: Place) -> None:
    partial = worse(place(gpu("a", 6), gpu("b", 18)))
    assert partial[:2] == [
        split({"a": 0.25, "b": 0.75}, n_gpu_layers=4, degraded=True),
        split({"a": 0.5, "b": 0.5}, n_gpu_layers=4, degraded=True),
    ]
    assert partial[-1] == Placement(n_ctx=512, degraded=True)


def test_a_model_of_many_layers_is_tried_in_steps(tmp_path: Path) -> None:
    metadata = {"context_length": TRAINED, "block_count": 80}
    path = write_sparse(tmp_path / "m.gguf", metadata=metadata)
    model = Model(id="m", path=str(path), source="test")
    found = AutoPlacement().place(model, [HOST_DEVICE, gpu("a", 20)])
    layers = [each.n_gpu_layers for each in found if each.degraded and each.devices]
    assert len(layers) == 16
    assert (layers[0], layers[-1]) == (80, 1)
    assert layers == sorted(layers, reverse=True)


def test_a_gpu_that_shares_the_hosts_memory_is_used_if_no_other_is(place: Place) -> None:
    unified = gpu("GB10", 60, 64, pool=HOST)
    assert [each.devices for each in place(unified)] == [("GB10",), ()]
    assert {each.devices for each in place(unified, gpu("a", 20))} == {("a",), ()}


def test_a_gpu_that_shares_the_hosts_memory_gains_nothing_by_a_part(place: Place) -> None:
    assert place(gpu("GB10", 60, 64, pool=HOST)) == [
        on("GB10"),
        Placement(n_ctx=512, degraded=True),
    ]


def test_parts_of_a_divided_gpu_are_not_used_together(place: Place) -> None:
    found = best(place(gpu("MIG-1", 20), gpu("MIG-2", 10), gpu("GPU-a", 5)))
    assert [each.devices for each in found] == [("MIG-1",), ("MIG-2",), ("GPU-a",)]


def test_gpus_of_two_kinds_are_not_used_together(place: Place) -> None:
    found = best(place(gpu("a", 20), gpu("v", 10, kind="vulkan"), gpu("b", 5)))
    assert [each.devices for each in found][3:] == [("a", "b")] * 2


def test_a_gpu_of_unknown_size_is_asked_last_and_by_itself(place: Place) -> None:
    found = best(place(gpu("x", 0, 0), gpu("b", 5)))
    assert [each.devices for each in found] == [("b",), ("x",)]


# What was said is kept


def test_a_number_of_layers_is_not_changed(place: Place) -> None:
    found = place(gpu("a", 20), gpu("b", 20), n_gpu_layers=3)
    assert {each.n_gpu_layers for each in found} == {3}
    assert best(found) == found


def test_no_layers_are_the_host(place: Place) -> None:
    assert place(gpu("a", 20), n_gpu_layers=0) == [Placement(n_ctx=512)]


def test_shares_are_not_changed(place: Place) -> None:
    found = place(gpu("a", 20), gpu("b", 2), tensor_split=(1.0, 3.0))
    assert best(found) == [split({"a": 1.0, "b": 3.0})]
    assert {each.tensor_split for each in worse(found)} == {(1.0, 3.0), ()}


def test_a_gpu_without_a_share_is_left_alone(place: Place) -> None:
    gpus = gpu("a", 20), gpu("b", 20), gpu("c", 20)
    assert best(place(*gpus, tensor_split=(0.0, 2.0, 1.0), main_gpu=2)) == [
        split({"b": 2.0, "c": 1.0}, main_gpu=1)
    ]
    assert best(place(*gpus, tensor_split=(0.0, 1.0))) == [on("b")]
    assert best(place(*gpus, tensor_split=(1.0, 1.0), main_gpu=2)) == [split({"a": 1.0, "b": 1.0})]


def test_shares_of_gpus_that_there_are_not_are_an_error(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"gives nothing to any of the 1 GPUs") as raised:
        place(gpu("a", 20), tensor_split=(0.0, 1.0))
    assert raised.value.param == "tensor_split"


def test_without_a_split_the_main_gpu_takes_everything(place: Place) -> None:
    gpus = gpu("a", 20), gpu("b", 2)
    assert best(place(*gpus, split_mode="none")) == [on("a")]
    assert best(place(*gpus, split_mode="none", main_gpu=1)) == [on("b")]
    with pytest.raises(ConfigError, match="main_gpu is 2, and there are 2 GPUs"):
        place(*gpus, split_mode="none", main_gpu=2)


def test_rows_are_split_over_all_gpus(place: Place) -> None:
    found = best(place(gpu("a", 6), gpu("b", 18), split_mode="row", main_gpu=1))
    assert found == [
        split({"a": 0.25, "b": 0.75}, split_mode="row", main_gpu=1),
        split({"a": 0.5, "b": 0.5}, split_mode="row", main_gpu=1),
    ]


def test_rows_of_one_gpu_are_all_its_own(place: Place) -> None:
    assert best(place(gpu("a", 6), split_mode="row")) == [on("a")]
    assert best(place(gpu("MIG-1", 6), gpu("MIG-2", 5), split_mode="row")) == [
        on("MIG-1"),
        on("MIG-2"),
    ]


def test_rows_over_gpus_of_unknown_size_are_equal(place: Place) -> None:
    found = best(place(gpu("a", 6), gpu("x", 0, 0), split_mode="row"))
    assert found == [split({"a": 0.5, "x": 0.5}, split_mode="row")]


# How far it may fall


def test_a_part_on_the_host_can_be_ruled_out(place: Place) -> None:
    assert place(gpu("a", 20), allow_partial_offload=False) == [
        on("a"),
        Placement(n_ctx=512, degraded=True),
    ]


def test_fewer_layers_than_wanted_are_not_proposed(place: Place) -> None:
    found = place(gpu("a", 20), min_gpu_layers=3)
    assert [each.n_gpu_layers for each in found] == [-1, 4, 3]
    assert [each.n_gpu_layers for each in place(gpu("a", 20), min_gpu_layers=99)] == [-1]


def test_where_there_are_no_gpus_none_are_asked_for(place: Place) -> None:
    assert place(min_gpu_layers=3) == [Placement(n_ctx=512)]


# The context


def test_a_context_that_was_said_is_not_changed(place: Place) -> None:
    assert {each.n_ctx for each in place(gpu("a", 20), n_ctx=700, fit_ctx=256)} == {700}


def test_a_context_that_is_left_open_shrinks_before_layers_leave(place: Place) -> None:
    found = place(gpu("a", 20), n_ctx=0)
    assert best(found) == [on("a", n_ctx=8192), on("a", n_ctx=4096)]
    assert {each.n_ctx for each in worse(found) if each.devices} == {4096}
    assert [each.n_ctx for each in worse(found) if not each.devices] == [8192, 4096]


def test_it_shrinks_on_the_host_too(place: Place) -> None:
    assert place(n_ctx=0) == [Placement(n_ctx=8192), Placement(n_ctx=4096)]


@pytest.mark.parametrize(
    ("fit_ctx", "contexts"),
    [(1000, [8192, 4096, 2048, 1024, 1000]), (6000, [8192, 6000]), (8192, [8192]), (9000, [8192])],
)
def test_it_shrinks_as_far_as_was_said(place: Place, fit_ctx: int, contexts: list[int]) -> None:
    assert [each.n_ctx for each in place(n_ctx=0, fit_ctx=fit_ctx)] == contexts


def test_a_file_that_cannot_be_read_is_placed_as_a_whole(tmp_path: Path) -> None:
    model = Model(id="m", path=str(tmp_path / "none.gguf"), source="test")
    assert AutoPlacement().place(model, [HOST_DEVICE, gpu("a", 20)]) == [
        on("a", n_ctx=0),
        Placement(degraded=True),
    ]


class TestExperts:
    """Of a model of experts, these leave the GPUs before whole layers do."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        metadata = {
            "context_length": TRAINED,
            "block_count": 24,
            "expert_count": 8,
            "expert_used_count": 2,
        }
        path = write_sparse(tmp_path / "experts.gguf", metadata=metadata)

        def placed(*gpus: Device, **options: Any) -> list[Placement]:
            load = LoadOptions(**{"n_ctx": 512} | options)
            model = Model(id="m", path=str(path), source="test", options=load)
            return list(AutoPlacement(0).place(model, [HOST_DEVICE, *gpus]))

        return placed

    def test_first_some_of_them_go_then_all_then_layers_too(self, place: Place) -> None:
        partial = worse(place(gpu("a", 20)))
        steps = [(each.n_gpu_layers, each.n_cpu_moe) for each in partial]
        assert steps == [
            *((-1, n) for n in (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 24)),
            *((n, 24) for n in (24, 16, 8, 1)),
            (0, 0),
        ]
        assert partial[0] == on("a", n_cpu_moe=1, degraded=True)

    def test_several_gpus_try_fewer_steps_each(self, place: Place) -> None:
        partial = worse(place(gpu("a", 6), gpu("b", 18)))
        assert partial[0] == split({"a": 0.25, "b": 0.75}, n_cpu_moe=1, degraded=True)
        assert len(partial) <= 17

    def test_experts_that_were_placed_by_hand_stay_there(self, place: Place) -> None:
        for said in ({"cpu_moe": True}, {"n_cpu_moe": 3}, {"override_tensor": ("exps=CPU",)}):
            assert not any(each.n_cpu_moe for each in place(gpu("a", 20), **said))

    def test_they_stay_where_no_part_may_leave(self, place: Place) -> None:
        found = place(gpu("a", 20), allow_partial_offload=False)
        assert not any(each.n_cpu_moe for each in found)

    def test_layers_that_must_be_on_gpus_are_there(self, place: Place) -> None:
        partial = worse(place(gpu("a", 20), min_gpu_layers=20))
        assert {each.n_gpu_layers for each in partial} == {-1, 24, 22, 21, 20}
