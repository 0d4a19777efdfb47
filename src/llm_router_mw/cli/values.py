"""Reading values of options that hold more than one thing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click


def split(values: Iterable[str]) -> tuple[str, ...]:
    """Return the single parts of *values*, each of which may hold several, parted by commas."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def adapters(files: Iterable[str], scaled: Iterable[str]) -> list[dict[str, Any]]:
    """Return the option ``lora`` for *files*, and for *scaled* ones (``FILE:SCALE``).

    Raises:
        click.UsageError: a scale is missing or no number.
        click.ClickException: a file is missing.
    """
    found = [_adapter(file, "1", "--lora") for file in files]
    for value in scaled:
        file, colon, scale = value.rpartition(":")
        if not colon:
            raise click.UsageError(f"--lora-scaled {value!r} has no scale; write FILE:SCALE")
        found.append(_adapter(file, scale, "--lora-scaled"))
    return found


def plugin_options(values: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the option ``plugin_options`` for *values* (``PLUGIN.OPTION=VALUE``).

    Raises:
        click.UsageError: a value has another form.
    """
    found: dict[str, dict[str, Any]] = {}
    for value in values:
        path, equals, text = value.partition("=")
        plugin, dot, option = path.partition(".")
        if not (equals and dot and plugin and option):
            raise click.UsageError(f"--plugin-option {value!r} is not 'NAME.OPTION=VALUE'")
        found.setdefault(plugin, {})[option] = _json_or_text(text)
    return found


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _adapter(file: str, scale: str, option: str) -> dict[str, Any]:
    try:
        number = float(scale)
    except ValueError as error:
        raise click.UsageError(f"{option}: the scale {scale!r} is no number") from error
    if not Path(file).is_file():
        raise click.ClickException(
            f"the adapter file {file!r} does not exist; check the path given with {option}"
        )
    return {"path": file, "scale": number}
