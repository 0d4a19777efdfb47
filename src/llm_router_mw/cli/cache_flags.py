"""Flags about saved conversations, and what else makes waking cheap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_MOST_MIB = 2**40

_FLAGS = (
    click.option(
        "--kv-cache/--no-kv-cache",
        default=True,
        show_default=True,
        help="Save conversations when a model sleeps, makes room or ends.",
    ),
    click.option(
        "-cram",
        "--cache-ram",
        type=click.IntRange(-1, _MOST_MIB),
        default=8192,
        show_default=True,
        envvar="LLAMA_ARG_CACHE_RAM",
        help="MiB that they may take in memory; -1: no limit, 0: off. [env: LLAMA_ARG_CACHE_RAM]",
    ),
    click.option(
        "--kv-cache-dir",
        "--slot-save-path",
        "kv_cache_dir",
        type=click.Path(file_okay=False),
        default=None,
        help="Directory in which they outlive the router.",
    ),
    click.option(
        "--kv-cache-disk",
        type=click.IntRange(-1, _MOST_MIB),
        default=16384,
        show_default=True,
        help="MiB that they may take there; -1: no limit.",
    ),
    click.option(
        "--kv-cache-ttl-seconds",
        type=click.FloatRange(-1, 1e9),
        default=86_400.0,
        show_default=True,
        help="Time without use after which one is forgotten; -1: never.",
    ),
    click.option(
        "--sleep-handler-timeout-seconds",
        type=click.FloatRange(0.001, 1e9),
        default=10.0,
        show_default=True,
        help="Time that saving, or another sleep handler, may take.",
    ),
    click.option(
        "--warm-weights",
        is_flag=True,
        help="Keep the files of sleeping models in the page cache.",
    ),
)


def cache_flags(command: CommandT) -> CommandT:
    """Give *command* the flags; it gets the options by their own names."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
