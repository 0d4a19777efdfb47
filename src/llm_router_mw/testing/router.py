"""Routers without real models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import EngineFactory, ModelSource
from llm_router_mw.router import Router
from llm_router_mw.testing.engine import FakeEngine
from llm_router_mw.testing.gguf import small_model
from llm_router_mw.types import LoadOptions, Model


class FakeSource:
    """Models with files that no engine could load; *shared* are further names over them."""

    name = "fake"

    def __init__(self, folder: Path, names: Sequence[str], shared: Mapping[str, str]) -> None:
        self._files = {name: name for name in names} | dict(shared)
        self._folder = folder
        for file in names:
            small_model().write(folder / f"{file}.gguf")

    def models(self) -> list[Model]:
        """Return one model for each name."""
        return [
            Model(
                id=name,
                path=str(self._folder / f"{file}.gguf"),
                source=self.name,
                options=LoadOptions(),
            )
            for name, file in self._files.items()
        ]


class FakePlugin:
    """Brings a fake engine and models named by letters, whose files lie in *folder*."""

    __name__ = "fake"

    def __init__(
        self,
        folder: Path,
        names: Sequence[str] = ("a", "b", "c"),
        shared: Mapping[str, str] = {},
    ) -> None:
        self.engine = FakeEngine()
        self._source = FakeSource(folder, names, shared)

    @hookimpl
    def llm_router_register_engines(self, config: RouterConfig) -> list[EngineFactory]:
        return [self.engine]

    @hookimpl
    def llm_router_register_model_sources(self, config: RouterConfig) -> list[ModelSource]:
        return [self._source]


def make_router(
    folder: Path,
    *plugins: object,
    models: Sequence[str] = ("a", "b", "c"),
    fake_engine: FakeEngine | None = None,
    **options: Any,
) -> Router:
    """Return a router, not yet entered, with pretended models that echo what they are asked.

    Args:
        folder: where their files are written.
        plugins: what is tried.
        models: ids of the models.
        fake_engine: tells what was loaded, and how that shall go; None is one that never fails.
        options: of the router. It has no memory margin unless they say so.
    """
    fake = FakePlugin(folder, models)
    if fake_engine is not None:
        fake.engine = fake_engine
    usual = {"engine": "fake", "models_memory_margin": 0, "observations_dir": str(folder)}
    return Router(plugins=[fake, *plugins], **{**usual, **options})
