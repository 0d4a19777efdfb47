"""The command ``llm-router-mw`` and its sub-commands."""

from __future__ import annotations

import click

from llm_router_mw import __version__
from llm_router_mw.cli.demo import demo
from llm_router_mw.cli.devices import devices
from llm_router_mw.cli.estimate import estimate
from llm_router_mw.cli.plugins import plugins
from llm_router_mw.cli.serve import serve
from llm_router_mw.cli.simulate import simulate_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llm-router-mw")
def main() -> None:
    """Many local GGUF models behind any ASGI or WSGI app."""


main.add_command(demo)
main.add_command(devices)
main.add_command(estimate)
main.add_command(plugins)
main.add_command(serve)
main.add_command(simulate_command)
