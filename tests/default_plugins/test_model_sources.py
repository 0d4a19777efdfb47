"""The sources that the options ask for."""

from __future__ import annotations

from pathlib import Path

from llm_router_mw.catalog import Catalog
from llm_router_mw.config import parse_config
from llm_router_mw.default_plugins.model_sources import llm_router_register_model_sources
from llm_router_mw.protocols import ModelSource
from llm_router_mw.testing.gguf import small_model


def test_without_a_directory_there_are_only_named_models() -> None:
    sources = llm_router_register_model_sources(config=parse_config())
    assert [source.name for source in sources] == ["config"]


def test_named_models_hide_those_of_the_directory(tmp_path: Path) -> None:
    small_model().write(tmp_path / "a.gguf")
    small_model().write(tmp_path / "b.gguf")
    config = parse_config(models_dir=tmp_path, models={"a": tmp_path / "b.gguf"}, n_ctx=1024)
    sources = llm_router_register_model_sources(config=config)
    assert all(isinstance(source, ModelSource) for source in sources)
    a, b = Catalog(sources).models()
    assert (a.id, a.source, a.path) == ("a", "config", str(tmp_path / "b.gguf"))
    assert (b.id, b.source, b.options.n_ctx) == ("b", "models_dir", 1024)
    assert a.instance_key == b.instance_key
