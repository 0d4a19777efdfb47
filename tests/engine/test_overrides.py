"""Arrays that place a model."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from llm_router_mw.engine.dry_run import dry_run
from llm_router_mw.engine.native import llama
from llm_router_mw.engine.overrides import install_devices, install_overrides, install_split
from llm_router_mw.engine.parameters import model_parameters
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.types import LoadOptions, Placement
from tests.engine.fake_ggml import FakeDevice, install

TWO = [FakeDevice("CUDA0", address="0000:01:00.0"), FakeDevice("CUDA1", address="0000:02:00.0")]


@pytest.fixture
def parameters() -> Any:
    return llama.llama_model_default_params()


def chosen(parameters: Any) -> list[int | None]:
    return list((ctypes.c_void_p * 3).from_address(parameters.devices))


def test_gpus_known_by_their_address_are_picked_in_order(
    monkeypatch: pytest.MonkeyPatch, parameters: Any
) -> None:
    install(monkeypatch, TWO)
    install_devices(parameters, ("0000:02:00.0", "0000:01:00.0"))
    assert chosen(parameters) == [2, 1, None]


def test_no_gpu_is_taken_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, parameters: Any
) -> None:
    install(monkeypatch, TWO)
    install_devices(parameters, ())
    assert ctypes.c_void_p.from_address(parameters.devices).value is None


def test_gpus_known_by_a_uuid_have_been_picked_before(
    monkeypatch: pytest.MonkeyPatch, parameters: Any
) -> None:
    install(monkeypatch, TWO)
    install_devices(parameters, ("GPU-1", "GPU-2"))
    assert not parameters.devices
    install(monkeypatch, [])
    install_devices(parameters, ())
    assert not parameters.devices


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, parameters: Any) -> None:
    install(monkeypatch, TWO)
    with pytest.raises(ModelLoadError, match=r"'0000:09:00\.0'; there are 0000:01:00"):
        install_devices(parameters, ("0000:01:00.0", "0000:09:00.0"))


def test_shares_are_given_for_as_many_gpus_as_there_may_be(parameters: Any) -> None:
    install_split(parameters, (3.0, 1.0))
    assert parameters.tensor_split[0] == 3.0
    assert parameters.tensor_split[1] == 1.0
    # Set or not, what is left out counts nothing.
    assert all(parameters.tensor_split[index] == 0 for index in range(2, llama.LLAMA_MAX_DEVICES))


def test_without_shares_llama_has_its_own_way(parameters: Any) -> None:
    install_split(parameters, ())
    assert not parameters.tensor_split


def test_more_shares_than_gpus_are_refused(parameters: Any) -> None:
    with pytest.raises(ModelLoadError, match="one share for each GPU"):
        install_split(parameters, (1.0,) * (llama.LLAMA_MAX_DEVICES + 1))


def test_a_buffer_type_that_is_not_there_is_refused(parameters: Any) -> None:
    with pytest.raises(
        ModelLoadError, match=r"'CUDA7', which does not exist here; there are .*CPU"
    ):
        install_overrides(parameters, [("exps", "CUDA7")])


def test_a_gpu_that_the_placement_leaves_out_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus = [FakeDevice("CUDA0", address="0000:01:00.0", buffer="CUDA0")]
    gpus.append(FakeDevice("CUDA1", address="0000:02:00.0", buffer="CUDA1"))
    install(monkeypatch, gpus)
    options = LoadOptions(override_tensor=("ffn=CUDA1",))
    placement = Placement(devices=("0000:01:00.0", "0000:02:00.0"), split_mode="layer")
    assert model_parameters(options, placement).tensor_buft_overrides
    for other in (
        structs.replace(placement, split_mode="none"),
        Placement(devices=("0000:01:00.0",)),
        Placement(),
    ):
        with pytest.raises(ModelLoadError, match="'CUDA1', which does not exist here"):
            model_parameters(options, other)


def test_llama_understands_the_overrides(endless: Path) -> None:
    options = LoadOptions(n_ctx=256, override_tensor=(r"blk\.0\.=CPU",), n_cpu_moe=1)
    [buffer, *_] = dry_run(str(endless), options, Placement()).buffers
    assert buffer.weights_bytes > 500_000
