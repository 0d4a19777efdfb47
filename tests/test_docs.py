"""What the documents say is so: snippets, links, options, errors, hooks, routes and commands."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest

from llm_router_mw import LLMRouterMiddleware, errors, hookspecs
from llm_router_mw.api import routes
from llm_router_mw.cli import main
from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.protocols import DeviceProbe, Estimator, EvictionPolicy, PlacementPolicy
from llm_router_mw.types import LoadOptions
from tests.support.answers import ask, client, model_ids
from tests.support.processes import free_port, server_process

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MOUNTING_LINES = 10


class Snippet(NamedTuple):
    """One fenced block."""

    document: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def snippets(*languages: str) -> list[Snippet]:
    """Return the blocks of all documents in one of the languages."""
    return [each for document in DOCUMENTS for each in blocks(document) if each[1] in languages]


def blocks(document: Path) -> Iterator[Snippet]:
    text = document.read_text()
    for match in FENCE.finditer(text):
        yield Snippet(document, match[1], match[2], text.count("\n", 0, match.start()) + 1)


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text())


def table(document: str, first: str) -> dict[str, list[str]]:
    """Return all rows of the tables whose first column is *first*: its name → the other cells."""
    rows: dict[str, list[str]] = {}
    inside = False
    for line in (DOCS / document).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = cells[1:]
    return rows


# Snippets


@pytest.mark.parametrize("snippet", snippets("python"), ids=str)
def test_python_snippets_are_python(snippet: Snippet) -> None:
    compile(snippet.text, str(snippet), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("snippet", snippets("json"), ids=str)
def test_json_snippets_are_json(snippet: Snippet) -> None:
    json.loads(snippet.text)


@pytest.mark.parametrize("snippet", snippets("toml"), ids=str)
def test_toml_snippets_are_toml(snippet: Snippet) -> None:
    tomllib.loads(snippet.text)


def test_the_router_is_mounted_in_ten_lines_that_work(tmp_path: Path, demo_models: Path) -> None:
    [mounting] = [each for each in blocks(ROOT / "README.md") if "models_dir" in each.text]
    assert len(mounting.text.strip().splitlines()) <= MOUNTING_LINES
    (tmp_path / "app.py").write_text(mounting.text)
    (tmp_path / "models").symlink_to(demo_models)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "uvicorn", "app:app", f"--port={port}"]
    with server_process(command, tmp_path, cwd=tmp_path) as server, client(url) as http:
        server.wait_for_answer(url)
        assert http.get("/").text == "My app is as it was."
        assert model_ids(http) == {"guide", "companion"}
        assert ask(http, "guide")


def test_the_options_that_are_shown_are_accepted() -> None:
    [shown] = [each for each in blocks(DOCS / "options.md") if each.language == "python"]
    names: dict[str, Any] = {}
    exec(shown.text, names)
    assert {entry.id for entry in parse_config(names["options"]).models} == {"search", "long"}


# Links


def links(document: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if not target.startswith(("https://", "http://", "mailto:")):
            yield target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    missing = [
        target
        for target in links(document)
        if not (document.parent / target.partition("#")[0]).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("document", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_every_document_is_reached_from_the_readme(document: Path) -> None:
    assert f"docs/{document.name}" in set(links(ROOT / "README.md"))


# Commands


def options_of(command: click.Command) -> set[str]:
    """Return the options of *command*, those of its own sub-commands among them."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return (
        {name for parameter in command.params for name in _names(parameter)}
        | {"--help", "-h"}
        | {name for each in below for name in options_of(each)}
    )


def _names(parameter: click.Parameter) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


def documented_commands() -> list[tuple[str, list[str]]]:
    """Return every use of the command in a block or in backticks: sub-command and its options."""
    found = []
    for document in DOCUMENTS:
        for match in re.finditer(r"llm-router-mw ([a-z]\w*)([^\n`]*)", document.read_text()):
            found.append((match[1], re.findall(r"(?<!\S)--?[a-z][\w-]*", match[2])))
    return found


def test_documented_commands_and_their_options_exist() -> None:
    uses = documented_commands()
    assert uses
    for command, given in uses:
        assert command in main.commands
        assert set(given) <= options_of(main.commands[command])


def test_every_option_of_serve_is_documented() -> None:
    text = (DOCS / "options.md").read_text()
    for parameter in main.commands["serve"].params:
        assert any(f"`{name}`" in text for name in _names(parameter)), parameter.name


# Options


def default_of(field: msgspec.structs.FieldInfo) -> str:
    factory = field.default_factory
    default = field.default if factory is msgspec.NODEFAULT else factory()
    return f"`{default!r}`".replace("'", '"')


@pytest.mark.parametrize("kind", [RouterConfig, LoadOptions], ids=lambda kind: kind.__name__)
def test_every_option_is_documented_with_its_default(kind: type[msgspec.Struct]) -> None:
    rows = table("options.md", "option")
    fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "load"}
    assert set(fields) <= set(rows)
    assert {name: rows[name][0] for name in fields} == {
        name: default_of(field) for name, field in fields.items()
    }


def door_options() -> set[str]:
    """Return what the doors take for themselves; the rest goes to the router."""
    parameters = inspect.signature(LLMRouterMiddleware).parameters.values()
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_every_option_of_the_doors_is_documented_and_no_other() -> None:
    known = {*RouterConfig.__struct_fields__, *LoadOptions.__struct_fields__} - {"load"}
    assert set(table("options.md", "option")) == known | door_options()


# Errors


def error_classes() -> dict[str, type[errors.LLMRouterError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.LLMRouterError)
    }


def test_every_error_is_documented() -> None:
    assert set(table("errors.md", "class")) == set(error_classes())


@pytest.mark.parametrize("name", sorted(error_classes()))
def test_an_error_is_documented_with_its_status(name: str) -> None:
    first, *_ = table("errors.md", "class")[name]
    if first.isdigit():
        assert int(first) == error_classes()[name].status


# Hooks


def hooks() -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(value)
        for name, value in vars(hookspecs).items()
        if name.startswith("llm_router_")
    }


@pytest.mark.parametrize("name", sorted(hooks()))
def test_every_hook_has_a_heading_with_its_signature(name: str) -> None:
    arguments = ", ".join(hooks()[name].parameters)
    assert f"### `{name}({arguments})`\n" in (DOCS / "plugins.md").read_text()


def test_no_hook_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^### `(\w+)\(", (DOCS / "plugins.md").read_text(), re.MULTILINE)
    assert set(documented) == set(hooks())


# Routes


def documented_routes() -> set[tuple[str, str]]:
    text = (DOCS / "http.md").read_text()
    return {(match[1], match[2]) for match in re.finditer(r"^\| `([A-Z]+) (/\S+)`", text, re.M)}


def served_routes() -> set[tuple[str, str]]:
    served = {**routes._INFERENCE, **routes._MANAGEMENT}
    return {(method, path) for path, route in served.items() for method in route.handlers}


def test_the_documented_routes_are_those_that_are_served() -> None:
    assert documented_routes() == {route for route in served_routes() if route[0] != "HEAD"}


# Plugins


def shown_plugins() -> list[Any]:
    """Return what the examples of plugins supply, made as a plugin would make it."""
    names: dict[str, Any] = {"__name__": "shown"}
    for snippet in blocks(DOCS / "plugins.md"):
        if snippet.language == "python":
            exec(snippet.text, names)
    kinds = [value for value in names.values() if inspect.isclass(value)]
    return [kind() for kind in kinds if kind.__module__ == "shown"]


KINDS = (DeviceProbe, Estimator, EvictionPolicy, PlacementPolicy)


def test_the_plugins_that_are_shown_are_what_they_are_called() -> None:
    shown = {kind for kind in KINDS for each in shown_plugins() if isinstance(each, kind)}
    assert shown == set(KINDS)
