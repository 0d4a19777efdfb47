"""The catalog: which models there are, where their files are, and whether they can be used."""

from llm_router_mw.catalog.catalog import Catalog
from llm_router_mw.catalog.directory import DirectorySource
from llm_router_mw.catalog.named import NamedSource

__all__ = ["Catalog", "DirectorySource", "NamedSource"]
