"""Which devices a worker lets its backends see."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw import wire
from llm_router_mw.types import LoadOptions, Placement
from llm_router_mw.worker.visible import visibility
from tests.worker.process import WorkerProcess

CURIOUS = {"template": "tests.worker.formats:CuriousFormat"}
FIRST, SECOND = "GPU-8f6d1e2a-0000-0000-0000-000000000001", "MIG-8f6d1e2a"


def test_without_a_placement_everything_is_seen() -> None:
    assert visibility(None) == {}


def test_a_model_on_the_host_sees_no_gpu() -> None:
    assert visibility(Placement()) == {
        "CUDA_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "-1",
        "GGML_VK_VISIBLE_DEVICES": "",
    }


def test_gpus_are_seen_in_the_order_of_the_placement() -> None:
    placement = Placement(devices=(SECOND, FIRST), n_gpu_layers=-1)
    assert visibility(placement) == {"CUDA_VISIBLE_DEVICES": f"{SECOND},{FIRST}"}


def test_gpus_that_are_known_by_address_are_left_to_the_engine() -> None:
    assert visibility(Placement(devices=("0000:01:00.0",), n_gpu_layers=-1)) == {}


@pytest.mark.parametrize(
    ("placement", "environ", "seen"),
    [
        (None, {}, "None"),
        (Placement(), {}, "''"),
        (Placement(devices=(FIRST,)), {}, repr(FIRST)),
        (Placement(devices=(FIRST,)), {"CUDA_VISIBLE_DEVICES": "7"}, "'7'"),
    ],
)
def test_a_worker_sees_what_its_order_says(
    worker: WorkerProcess,
    endless: Path,
    placement: Placement | None,
    environ: dict[str, str],
    seen: str,
) -> None:
    worker.hello()
    options = LoadOptions(n_ctx=256, n_threads=1)
    worker.send(wire.Load(str(endless), options, CURIOUS, environ, placement))
    while isinstance(message := worker.receive(), wire.Progress):
        pass
    assert isinstance(message, wire.Loaded), message
    assert f"visible: {seen}\n" in worker.log


def test_the_context_is_as_long_as_its_placement_says(worker: WorkerProcess, endless: Path) -> None:
    worker.hello()
    options = LoadOptions(n_ctx=1024, n_threads=1)
    worker.send(wire.Load(str(endless), options, CURIOUS, placement=Placement(n_ctx=512)))
    for awake in (False, True):
        if awake:
            worker.send(wire.Sleep("full"))
            worker.expect(wire.Slept)
            worker.send(wire.Wake())
        while isinstance(message := worker.receive(), wire.Progress):
            pass
        assert isinstance(message, wire.Loaded), message
        assert message.info.n_ctx == 512
