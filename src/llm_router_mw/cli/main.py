"""The command ``llm-router-mw`` and its sub-commands."""

from __future__ import annotations

import logging

import click

from llm_router_mw import __version__
from llm_router_mw.cli.cache import cache
from llm_router_mw.cli.demo import demo
from llm_router_mw.cli.devices import devices
from llm_router_mw.cli.estimate import estimate
from llm_router_mw.cli.host import host
from llm_router_mw.cli.plugin import plugin
from llm_router_mw.cli.plugins import plugins
from llm_router_mw.cli.serve import serve
from llm_router_mw.cli.simulate import simulate_command
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import PluginError
from llm_router_mw.router.plugins import Plugins

logger = logging.getLogger("llm_router_mw.cli")


class _Commands(click.Group):
    """Our commands, and those of plugins: imported only when ours do not answer the call."""

    def __init__(self, **attributes: object) -> None:
        super().__init__(**attributes)  # type: ignore[arg-type]
        self._asked = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def _ask_plugins(self) -> None:
        if self._asked:
            return
        self._asked = True
        ours = dict(self.commands)
        try:
            for implementation in Plugins(RouterConfig()).implementations(_HOOK):
                try:
                    implementation(cli=self)
                except PluginError as error:
                    logger.error("commands are left out: %s", error)
        except PluginError as error:
            logger.error("the commands of plugins are left out: %s", error)
        self.commands.update(ours)  # nobody replaces one of ours


_HOOK = "llm_router_register_commands"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llm-router-mw")
def main() -> None:
    """Many local GGUF models behind any ASGI or WSGI app."""


for command in (cache, demo, devices, estimate, host, plugin, plugins, serve, simulate_command):
    main.add_command(command)
