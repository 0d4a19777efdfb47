"""Flags that say how models share the machine: who is loaded, who waits, who sleeps and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from llm_router_mw.cli.values import split
from llm_router_mw.types import SleepLevel, Step

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
Groups = dict[str, dict[str, Any]]


def groups_of(values: tuple[str, ...]) -> Groups:
    """Return the option ``groups`` that *values* say, each as ``exclusive=a,b``.

    Raises:
        click.BadParameter: one says no mode.
    """
    found: Groups = {}
    for value in values:
        mode, equals, members = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} has no mode; write exclusive=a,b or together=a,b")
        found[value] = {"mode": mode.strip(), "members": split([members])}
    return found


def _groups(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Groups:
    return groups_of(values)


def _names(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    return split(values)


def _seconds(name: str, default: float, help: str) -> Callable[[CommandT], CommandT]:
    return click.option(name, type=float, default=default, show_default=True, help=help)


_FLAGS = (
    click.option(
        "--models-max",
        type=click.IntRange(0, 10_000),
        default=4,
        show_default=True,
        envvar="LLAMA_ARG_MODELS_MAX",
        help="Models loaded at once at most; 0: no limit. [env: LLAMA_ARG_MODELS_MAX]",
    ),
    click.option(
        "--workers-max",
        type=click.IntRange(0, 10_000),
        default=0,
        show_default=True,
        help="Worker processes at once, those of sleeping models included; 0: no limit.",
    ),
    click.option(
        "--models-autoload/--no-models-autoload",
        default=True,
        show_default=True,
        envvar="LLAMA_ARG_MODELS_AUTOLOAD",
        help="Load a model when a request names it. [env: LLAMA_ARG_MODELS_AUTOLOAD]",
    ),
    click.option(
        "--preload",
        multiple=True,
        callback=_names,
        metavar="MODEL",
        help="Load this model at the start; repeatable, or several with commas.",
    ),
    click.option(
        "--pin",
        multiple=True,
        callback=_names,
        metavar="MODEL",
        help="Never evict this model for others; repeatable, or several with commas.",
    ),
    click.option(
        "--prefetch/--no-prefetch",
        default=False,
        show_default=True,
        help="Load ahead what is usually asked for next, where that evicts nothing.",
    ),
    click.option(
        "--group",
        "groups",
        multiple=True,
        callback=_groups,
        metavar="MODE=MODELS",
        help="exclusive=a,b: at most one of them is loaded; together=a,b: all or none. Repeatable.",
    ),
    click.option(
        "--eviction-policy",
        default="lru",
        show_default=True,
        help="Which idle model goes first when room is needed.",
    ),
    click.option(
        "--evict-to",
        type=click.Choice(get_args(Step)),
        default="stop",
        show_default=True,
        help="How far down it goes, as far as that frees enough.",
    ),
    _seconds("--min-resident-seconds", 0.0, "How long a loaded model stays at least."),
    _seconds("--max-wait-seconds", 30.0, "Others' work a request waits for before they drain."),
    click.option(
        "--max-queue",
        type=click.IntRange(0, 1_000_000),
        default=512,
        show_default=True,
        help="Requests that may wait in all; 0: no limit.",
    ),
    click.option(
        "--max-queue-per-model",
        type=click.IntRange(0, 1_000_000),
        default=0,
        show_default=True,
        help="Requests that may wait for one model; 0: no limit.",
    ),
    click.option(
        "-to",
        "--timeout",
        "queue_timeout_seconds",
        type=float,
        default=600.0,
        show_default=True,
        envvar="LLAMA_ARG_TIMEOUT",
        help="Seconds that a request may wait for its model. [env: LLAMA_ARG_TIMEOUT]",
    ),
    _seconds("--max-keep-alive-seconds", 86_400.0, "The longest keep_alive of a request."),
    _seconds("--sleep-idle-seconds", -1.0, "Idle time after which a model sleeps; -1: never."),
    click.option(
        "--sleep-level",
        type=click.Choice(get_args(SleepLevel)),
        default="full",
        show_default=True,
        help="What sleep frees: the context, or the weights too.",
    ),
    _seconds("--unload-idle-seconds", -1.0, "Idle time after which its process ends; -1: never."),
    _seconds("--max-lease-seconds", 3600.0, "How long a request may use a model at most."),
    _seconds("--client-stall-seconds", 60.0, "A client that reads nothing for so long is cut off."),
    _seconds("--load-stall-seconds", 300.0, "A load without progress for so long is given up."),
    _seconds("--worker-stall-seconds", 120.0, "Silence of a busy worker after which it is ended."),
)


def scheduling_flags(command: CommandT) -> CommandT:
    """Give *command* the flags; it gets the options by their own names."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
