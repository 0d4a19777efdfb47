"""``llm-router-mw plugins``: what is plugged in, and what was left out."""

from __future__ import annotations

import re

import click
import msgspec
from msgspec import Struct

from llm_router_mw.cli import log
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.router.registry import Registry, load_registry

_HOOK_PREFIX = re.compile("llm_router_(register_)?")


class PluginRow(Struct, frozen=True, kw_only=True):
    """One plugin that is in use."""

    name: str
    origin: str
    """``shipped``, ``installed`` or ``given``."""
    distribution: str
    version: str
    hooks: tuple[str, ...]
    objects: tuple[str, ...]
    """Names of what it supplied."""


class LeftOut(Struct, frozen=True, kw_only=True):
    """An installed plugin that is not in use."""

    name: str
    reason: str


class Report(Struct, frozen=True, kw_only=True):
    """All plugins of a router."""

    plugins: tuple[PluginRow, ...]
    left_out: tuple[LeftOut, ...]


@click.group(invoke_without_command=True)
@click.option("--plugin", "given", multiple=True, metavar="MODULE", help="Use this one too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plugins(context: click.Context, /, *, given: tuple[str, ...], as_json: bool) -> None:
    """Show the plugins that a router would use, and what they supply."""
    if context.invoked_subcommand is not None:
        return
    log.configure()
    try:
        report = _report(load_registry(RouterConfig(), given))
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _print(report)


def _report(registry: Registry) -> Report:
    rows = [
        PluginRow(
            name=plugin.name,
            origin=plugin.origin,
            distribution=plugin.distribution,
            version=plugin.version,
            hooks=plugin.hooks,
            objects=registry.names.get(plugin.name, ()),
        )
        for plugin in registry.plugins
    ]
    left_out = (LeftOut(name=name, reason=why) for name, why in registry.left_out.items())
    return Report(plugins=tuple(rows), left_out=tuple(left_out))


def _print(report: Report) -> None:
    for row in report.plugins:
        origin = f"{row.distribution} {row.version}" if row.distribution else row.origin
        hooks = ", ".join(_HOOK_PREFIX.sub("", hook) for hook in row.hooks)
        click.echo(f"{row.name} ({origin})")
        click.echo(f"  hooks:    {hooks or 'none'}")
        if row.objects:
            click.echo(f"  supplies: {', '.join(dict.fromkeys(row.objects))}")
    for each in report.left_out:
        click.echo(f"left out: {each.name}: {each.reason}")
