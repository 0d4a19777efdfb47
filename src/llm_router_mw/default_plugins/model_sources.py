"""The model sources of the options ``models`` and ``models_dir``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_router_mw.catalog import DirectorySource, NamedSource
from llm_router_mw.hookspecs import hookimpl

if TYPE_CHECKING:
    from llm_router_mw.config import RouterConfig
    from llm_router_mw.protocols import ModelSource


@hookimpl
def llm_router_register_model_sources(config: RouterConfig) -> Sequence[ModelSource]:
    """Supply the named models first: they hide those of a directory that have the same name."""
    named = NamedSource(config.models)
    if config.models_dir is None:
        return [named]
    return [named, DirectorySource(config.models_dir, config.load)]
