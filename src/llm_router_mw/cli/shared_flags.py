"""Flags that say whether a server has its router for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_FLAGS = (
    click.option(
        "--mode",
        type=click.Choice(("local", "shared")),
        default="local",
        show_default=True,
        help="shared: the router is in a process of its own, for all servers with the same "
        "options; models stay loaded while a server restarts.",
    ),
    click.option(
        "--shared-name",
        default="",
        metavar="NAME",
        help="Share with servers of this name rather than of this directory.",
    ),
    click.option(
        "--shared-grace-seconds",
        type=float,
        default=30.0,
        show_default=True,
        help="How long a shared router stays when no server uses it.",
    ),
)


def shared_flags(command: CommandT) -> CommandT:
    """Give *command* the flags; it gets the options by their own names."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
