"""Load options and placements become flags of llama-server."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.errors import NotSupportedError
from llm_router_mw.testing import small_model
from llm_router_mw.types import LoadOptions, LoraAdapter, Placement
from llm_router_mw.wire import Load
from llm_router_mw_llamaserver.arguments import arguments


def told(options: LoadOptions, placement: Placement | None, path: Path, *extra: str) -> list[str]:
    file = small_model().write(path / "a.gguf")
    order = Load(path=str(file), options=options, chat_formats={}, placement=placement)
    return arguments(order, extra, warm_up=True)


def value(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


def test_options_become_flags(tmp_path: Path) -> None:
    options = LoadOptions(
        n_ctx=1024,
        n_parallel=2,
        n_threads=3,
        kv_unified=False,
        cpu_moe=True,
        use_mlock=True,
        type_k="q8_0",
        swa_full=True,
        offload_kqv=False,
        chat_template="{{ 1 }}",
        lora=(LoraAdapter(path="/a.gguf", scale=0.5),),
    )
    flags = told(options, None, tmp_path, "--verbose")
    assert (value(flags, "--ctx-size"), value(flags, "--parallel")) == ("1024", "2")
    assert (value(flags, "--threads"), value(flags, "--cache-type-k")) == ("3", "q8_0")
    assert value(flags, "--lora-scaled") == "/a.gguf:0.5"
    assert value(flags, "--load-mode") == "mmap+mlock"
    assert value(flags, "--chat-template") == "{{ 1 }}"
    assert value(flags, "--override-tensor").endswith("=CPU")
    assert {"--no-kv-unified", "--swa-full", "--no-kv-offload"} <= set(flags)
    assert flags[-1] == "--verbose"


def test_the_placement_has_the_say(tmp_path: Path) -> None:
    placement = Placement(
        devices=("GPU-1", "GPU-2"),
        n_gpu_layers=-1,
        split_mode="layer",
        tensor_split=(3.0, 1.0),
        n_ctx=512,
    )
    flags = told(LoadOptions(n_gpu_layers=2, n_ctx=1024), placement, tmp_path)
    assert (value(flags, "--n-gpu-layers"), value(flags, "--ctx-size")) == ("9999", "512")
    assert (value(flags, "--split-mode"), value(flags, "--tensor-split")) == ("layer", "3,1")
    flags = told(LoadOptions(), Placement(), tmp_path)
    assert (value(flags, "--n-gpu-layers"), value(flags, "--main-gpu")) == ("0", "0")


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    by_address = Placement(devices=("0000:01:00.0",), n_gpu_layers=-1)
    with pytest.raises(NotSupportedError, match="--device"):
        told(LoadOptions(), by_address, tmp_path)
    assert told(LoadOptions(), by_address, tmp_path, "--device", "Vulkan0")
    with pytest.raises(NotSupportedError, match="chat_format"):
        told(LoadOptions(chat_format="own"), None, tmp_path)
