"""The request field ``lora``."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.types import ChatTask, CompletionTask
from tests.support.asgi_driver import post
from tests.support.fake_router import FakeRouter

pytestmark = pytest.mark.asyncio

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Once"},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("lora", "scales"),
    [
        (None, None),
        ([], ()),
        ([{"id": 1, "scale": 0.5}, {"id": 0, "scale": -1}], ((1, 0.5), (0, -1.0))),
    ],
)
async def test_the_task_holds_the_scales(path: str, lora: Any, scales: Any) -> None:
    router = FakeRouter()
    api = RouterAPI(router, api_settings())
    await post(api, path, {"model": "tiny", "lora": lora, **BODIES[path]})
    task = router.leases[0].streams[0].task
    assert isinstance(task, (ChatTask, CompletionTask))
    assert task.lora == scales


@pytest.mark.parametrize(
    ("lora", "param"),
    [
        ("a.gguf", "lora"),
        ([7], "lora[0]"),
        ([{"scale": 1}], "lora[0]"),
        ([{"id": 0}], "lora[0]"),
        ([{"id": "a", "scale": 1}], "lora[0].id"),
        ([{"id": 0, "scale": "much"}], "lora[0].scale"),
        ([{"id": -1, "scale": 1}], "lora"),
        ([{"id": 2**70, "scale": 1}], "lora"),
        ([{"id": 0, "scale": 1}] * 1025, "lora"),
    ],
)
async def test_what_is_no_scale_is_a_400(lora: Any, param: str) -> None:
    router = FakeRouter()
    api = RouterAPI(router, api_settings())
    body = {"model": "tiny", "prompt": "Once", "lora": lora}
    answer = await post(api, "/v1/completions", body)
    assert answer.status == 400
    assert answer.error["param"] == param
    assert router.leases == []
