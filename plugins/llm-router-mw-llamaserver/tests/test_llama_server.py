"""With the real binary, where ``LLAMA_SERVER`` names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw import Router
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ContextExceededError, InvalidRequestError
from llm_router_mw.testing import check_engine
from llm_router_mw.types import LoadOptions, Model
from llm_router_mw_llamaserver import LlamaServerEngine
from llm_router_mw_llamaserver.options import Options

BINARY = os.environ.get("LLAMA_SERVER", "")
pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(not BINARY, reason="LLAMA_SERVER names no binary"),
]


@pytest.fixture(scope="module")
def guide() -> Path:
    """The demo's model, two megabytes."""
    import llm_router_mw.demo_models

    return Path(llm_router_mw.demo_models.__path__[0]) / "guide.gguf"


@pytest.fixture
def make(tmp_path: Path, guide: Path) -> Callable[..., Router]:
    def make(**options: Any) -> Router:
        return Router(
            models={"guide": {"path": str(guide), "n_ctx": 256, **options}},
            engine="llama-server",
            models_memory_margin=0,
            observations_dir=str(tmp_path),
            plugin_options={"llama-server": {"binary": BINARY}},
        )

    return make


async def test_it_conforms(guide: Path) -> None:
    engine = LlamaServerEngine(RouterConfig(), Options(binary=BINARY))
    options = LoadOptions(n_ctx=256, n_gpu_layers=0)
    await check_engine(engine, Model(id="guide", path=str(guide), source="", options=options))


async def test_it_answers_sleeps_and_wakes(make: Callable[..., Router]) -> None:
    async with make() as router:
        for _ in range(2):
            async with router.acquire("guide") as llm:
                messages = [{"role": "user", "content": "hi"}]
                reply = await llm.chat(messages, max_tokens=3, temperature=0, n_probs=1)
                assert reply.text
                assert (reply.finish_reason, reply.usage.completion_tokens) == ("length", 3)
                assert reply.usage.prompt_tokens > 0
                assert llm.info.n_ctx == 256
            await router.sleep("guide")


async def test_what_it_refuses_is_told(make: Callable[..., Router]) -> None:
    async with make() as router, router.acquire("guide") as llm:
        with pytest.raises(ContextExceededError) as caught:
            await llm.complete(tuple(range(5, 605)))
        assert caught.value.fields["n_ctx"] == 256
        with pytest.raises(InvalidRequestError, match="grammar"):
            await llm.complete("Once", grammar="bad bad")


async def test_it_embeds(make: Callable[..., Router]) -> None:
    async with make(pooling="mean") as router, router.acquire("guide") as llm:
        reply = await llm.embed(["hi", "there you"])
    assert [round(sum(value * value for value in vector), 3) for vector in reply.vectors] == [1, 1]
