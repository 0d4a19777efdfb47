"""The command line: ``llm-router-mw demo`` and ``llm-router-mw serve``."""

from llm_router_mw.cli.main import main

__all__ = ["main"]
