"""The models that the option ``models`` takes from the hub."""

from __future__ import annotations

from pathlib import Path

from llm_router_mw.catalog import Catalog
from llm_router_mw.config import parse_config
from llm_router_mw.default_plugins import hub_models, model_sources
from llm_router_mw.protocols import ModelSource
from llm_router_mw.types import LoadOptions, Model, ModelSettings


def test_they_are_listed_as_they_were_named(tmp_path: Path) -> None:
    config = parse_config(
        models={
            "here": tmp_path / "a.gguf",
            "there": {
                "hf_repo": "o/n:q8_0",
                "aliases": ["far"],
                "tags": ["t"],
                "n_ctx": 512,
                "pinned": True,
            },
        }
    )
    (source,) = hub_models.llm_router_register_model_sources(config=config)
    assert isinstance(source, ModelSource)
    assert source.models() == [
        Model(
            id="there",
            path="hf://o/n:Q8_0",
            source="hub",
            aliases=("far",),
            tags=("t",),
            options=LoadOptions(n_ctx=512),
            settings=ModelSettings(pinned=True),
        )
    ]
    (named,) = model_sources.llm_router_register_model_sources(config=config)
    assert [model.id for model in named.models()] == ["here"]


def test_names_of_one_model_share_an_instance() -> None:
    config = parse_config(models={"a": "hf://o/n:Q8_0", "b": {"hf_repo": "o/n:q8_0"}})
    a, b = Catalog(hub_models.llm_router_register_model_sources(config=config)).models()
    assert a.instance_key == b.instance_key
    assert str(a.instance_key) == "n:Q8_0"
