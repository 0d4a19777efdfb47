"""A distribution installed beside the package is found and used, with no code in the app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_router_mw import Router

pytestmark = pytest.mark.asyncio


def options(demo_models: Path) -> dict[str, Any]:
    """Return three instances, of which two may be loaded at once."""
    guide = str(demo_models / "guide.gguf")
    return {
        "models": {name: {"path": guide, "n_ctx": n} for name, n in (("a", 256), ("b", 320))}
        | {"c": str(demo_models / "companion.gguf")},
        "models_max": 2,
    }


async def loaded_after_three(router: Router) -> set[str]:
    """Load a, b and c in turn and return the ids of those that are left."""
    for name in ("a", "b", "c"):
        await router.load(name)
    return {view.id for view in router.models() if view.status == "loaded"}


async def test_the_installed_policy_decides_when_it_is_chosen(demo_models: Path) -> None:
    async with Router(eviction_policy="newest-first", **options(demo_models)) as router:
        assert await loaded_after_three(router) == {"a", "c"}


async def test_installing_a_policy_changes_nothing_until_it_is_chosen(demo_models: Path) -> None:
    async with Router(**options(demo_models)) as router:
        assert await loaded_after_three(router) == {"b", "c"}
