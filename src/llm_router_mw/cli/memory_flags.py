"""Flags that say how much memory models may take, and what to do where it is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from llm_router_mw.cli.values import split
from llm_router_mw.memory.allowance import DEFAULT

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def amounts(text: str) -> dict[str, int]:
    """Return the MiB by device that *text* says, as ``1024`` or ``host=4096,default=512``.

    Raises:
        click.BadParameter: a part is no whole number, or a device is named twice.
    """
    found: dict[str, int] = {}
    for part in split([text]):
        name, equals, number = part.rpartition("=")
        name = name.strip() if equals else DEFAULT
        if not name or not number.strip().isdecimal():
            raise click.BadParameter(f"{part!r} is not MiB, or device=MiB as host=4096")
        if name in found:
            raise click.BadParameter(f"{name!r} is named twice")
        found[name] = int(number)
    return found


def _amounts(context: click.Context, parameter: click.Parameter, value: str) -> dict[str, int]:
    return amounts(value)


margin_flag = click.option(
    "--models-memory-margin",
    default="1024",
    callback=_amounts,
    metavar="MIB",
    show_default=True,
    help="MiB that stay free on each device, or by name: host=4096,default=512; 0: off.",
)
_FLAGS = (
    margin_flag,
    click.option(
        "--memory-limit",
        default="",
        callback=_amounts,
        metavar="MIB",
        help="MiB that all models together may take of each device, or by name.",
    ),
    click.option(
        "--watch-memory-seconds",
        type=click.FloatRange(0.1, 1e9),
        default=5.0,
        show_default=True,
        help="How often free memory is looked at.",
    ),
    click.option(
        "--require-estimate",
        is_flag=True,
        help="Refuse models of which nobody can say what they need.",
    ),
    click.option(
        "--charge-mmap/--no-charge-mmap",
        default=True,
        show_default=True,
        help="Count mapped files in full.",
    ),
    click.option(
        "-fitc",
        "--fit-ctx",
        type=click.IntRange(1, 2**31 - 1),
        default=4096,
        show_default=True,
        help="Tokens to which a context may shrink that --ctx-size leaves open.",
    ),
    click.option(
        "--min-gpu-layers",
        type=click.IntRange(0, 2**31 - 1),
        default=0,
        show_default=True,
        help="Layers that must lie on GPUs where there are any.",
    ),
    click.option(
        "--partial-offload/--no-partial-offload",
        "allow_partial_offload",
        default=True,
        show_default=True,
        help="Let a part of the layers stay on the host.",
    ),
    click.option(
        "--prefer",
        type=click.Choice(("gpu", "coexist")),
        default="gpu",
        show_default=True,
        help="Evict idle models for a better place, or take a worse one beside them.",
    ),
)


def memory_flags(command: CommandT) -> CommandT:
    """Give *command* the flags; it gets the options by their own names."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
