"""``llm-router-mw plugin new``: the beginning of a plugin, with a test that passes."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import click

from llm_router_mw import __version__
from llm_router_mw.hookspecs import API_VERSION

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PREFIX = "llm-router-mw-"
_TEMPLATE = resources.files("llm_router_mw.cli") / "plugin_template"
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "module.py": "src/{module}/__init__.py",
    "test_module.py": "tests/test_{name_}.py",
}
"""Of the template → where it goes."""


@click.group()
def plugin() -> None:
    """Make plugins."""


@plugin.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where it is made; the working directory if not given.",
)
def new(*, name: str, directory: Path) -> None:
    """Write a distribution with a plugin called NAME, and its test.

    NAME is in small letters, digits and hyphens; the distribution is llm-router-mw-NAME.
    """
    name = name.removeprefix(_PREFIX)
    if not _NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} is no name for a plugin; write it in small letters, digits and hyphens"
        )
    folder = directory / f"{_PREFIX}{name}"
    if folder.exists():
        raise click.ClickException(f"{str(folder)!r} exists; choose another name or directory")
    words = _words(name)
    for source, target in _FILES.items():
        path = folder / target.format(**words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled((_TEMPLATE / f"{source}.txt").read_text(), words))
    click.echo(f"made {folder}; try it:")
    click.echo(f"  cd {folder} && pip install -e '.[test]' && pytest")


def _words(name: str) -> dict[str, str]:
    return {
        "name": name,
        "name_": name.replace("-", "_"),
        "distribution": f"{_PREFIX}{name}",
        "module": f"{_PREFIX}{name}".replace("-", "_"),
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "version": ".".join(__version__.split(".")[:2]),
        "api": str(API_VERSION),
    }


def _filled(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"<<{word}>>", value)
    return text
