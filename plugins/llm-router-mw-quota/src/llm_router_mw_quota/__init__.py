"""Budgets of tokens and requests for each API key, as a plugin of llm-router-mw."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llm_router_mw.config import plugin_options
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw_quota.account import Account
from llm_router_mw_quota.commands import quota
from llm_router_mw_quota.guard import QuotaGuard
from llm_router_mw_quota.options import Options

if TYPE_CHECKING:
    import click

    from llm_router_mw.config import RouterConfig
    from llm_router_mw.protocols import RequestGuard

__all__ = ["QuotaGuard"]

llm_router_api = 1


@hookimpl
def llm_router_register_request_guards(config: RouterConfig) -> list[RequestGuard]:
    """Supply the guard, with an account that is opened at its first request."""
    options = plugin_options(config, "quota", Options)
    return [QuotaGuard(options, Account(options.path(), options.keep_days), time.time)]


@hookimpl
def llm_router_register_commands(cli: click.Group) -> None:
    """Add ``llm-router-mw quota``."""
    cli.add_command(quota)
