"""Flags about models of the hub, under llama-server's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from llm_router_mw.errors import ConfigError
from llm_router_mw.hub_reference import parse_reference

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_FLAGS = (
    click.option(
        "-hff",
        "--hf-file",
        metavar="FILE",
        help="File in the repository, where the quantisation does not say which.",
    ),
    click.option(
        "-hft",
        "--hf-token",
        metavar="TOKEN",
        help="Token for private and gated repositories. [env: HF_TOKEN]",
    ),
    click.option(
        "--offline",
        is_flag=True,
        envvar="LLAMA_ARG_OFFLINE",
        help="Never use the network; models of the hub must be cached. [env: LLAMA_ARG_OFFLINE]",
    ),
)


def hub_flags(command: CommandT) -> CommandT:
    """Give *command* the flags; it gets ``hf_file``, ``hf_token`` and ``offline``."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def hub_models(repos: Sequence[str], file: str | None) -> dict[str, dict[str, Any]]:
    """Return the entries of the option ``models`` for *repos*, by id: ``owner/name:QUANT``.

    Raises:
        click.UsageError: one is no repository, is named twice, or *file* has no single one.
    """
    if file is not None and len(repos) != 1:
        raise click.UsageError("-hff names a file in one repository: give one -hf with it")
    named: dict[str, dict[str, Any]] = {}
    for repo in repos:
        try:
            reference = parse_reference(repo, file)
        except ConfigError as error:
            raise click.UsageError(error.message) from error
        name = reference.repo if file else str(reference)
        if name in named:
            raise click.UsageError(f"the model {name!r} is named twice with -hf")
        named[name] = {"hf_repo": repo, "hf_file": file}
    return named
