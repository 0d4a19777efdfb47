"""What the documents say is so: snippets, links, options, errors, hooks, routes and commands."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import click
import msgspec
import pytest
from click.testing import CliRunner

from llm_router_mw import LLMRouterMiddleware, errors, hookspecs, testing
from llm_router_mw.api import routes
from llm_router_mw.cli import main
from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.testing import (
    check_chat_format,
    check_device_probe,
    check_estimator,
    check_eviction_policy,
    check_model_source,
    check_placement_policy,
    make_router,
)
from llm_router_mw.types import LoadOptions
from tests.support.answers import ask, client, model_ids
from tests.support.processes import free_port, server_process

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOOKS = DOCS / "plugins" / "hooks.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MOUNTING_LINES = 10


class Snippet(NamedTuple):
    """One fenced block."""

    document: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{called(self.document)}:{self.line}"


def called(document: Path) -> str:
    """Return the name of *document*: below docs, its path there."""
    return str(document.relative_to(DOCS if document.is_relative_to(DOCS) else ROOT))


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=called)
def test_links_lead_somewhere(document: Path) -> None:
    missing = [
        target
        for target in links(document)
        if not (document.parent / target.partition("#")[0]).exists()
    ]
    assert missing == []


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings of *document*, as GitHub names them."""
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", title).lower() for title in titles)
    return {title.replace(" ", "-") for title in kept}


@pytest.mark.parametrize("document", DOCUMENTS, ids=called)
def test_links_into_documents_lead_to_a_heading(document: Path) -> None:
    missing = []
    for target in links(document):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if anchor and file.suffix == ".md" and anchor not in anchors(file):
            missing.append(target)
    assert missing == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    found = list(reached)
    while found:
        document = found.pop()
        targets = {(document.parent / each.partition("#")[0]).resolve() for each in links(document)}
        new = (targets & set(DOCUMENTS)) - reached
        reached |= new
        found += new
    assert set(DOCS.rglob("*.md")) <= reached


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

SAID_OF_EACH = ("**Called:**", "**Runs:**", "**None:**", "**Error:**")
EXAMPLE_LINES = 12


def hooks() -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(value)
        for name, value in vars(hookspecs).items()
        if name.startswith("llm_router_")
    }


def sections() -> dict[str, str]:
    """Return what is said of each hook, by its heading: the hook and the names of arguments."""
    _, *parts = re.split(r"^## `(.+)`$", HOOKS.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def section(hook: str) -> str:
    """Return what is said of *hook*, whose heading holds the names of its arguments."""
    return sections()[f"{hook}({', '.join(hooks()[hook].parameters)})"]


def test_no_hook_is_documented_that_does_not_exist() -> None:
    assert sorted(heading.partition("(")[0] for heading in sections()) == sorted(hooks())


@pytest.mark.parametrize("hook", sorted(hooks()))
def test_a_hook_is_documented_with_its_exact_signature(hook: str) -> None:
    signature = str(hooks()[hook]).replace("'", "")  # of annotations that are not evaluated
    assert section(hook).strip().splitlines()[0] == f"`{hook}{signature}`"


@pytest.mark.parametrize("hook", sorted(hooks()))
def test_it_is_said_when_and_where_it_works_what_none_means_and_what_an_error_does(
    hook: str,
) -> None:
    said = [line for line in section(hook).splitlines() if line.startswith("- **")]
    assert [line.split()[1] for line in said[-len(SAID_OF_EACH) :]] == list(SAID_OF_EACH)


def example(hook: str, folder: Path) -> ModuleType:
    """Return the example of *hook* as a module that can be imported."""
    [match] = FENCE.finditer(section(hook))
    lines = [line for line in match[2].splitlines() if line]
    written = [line for line in lines if not line.startswith(("from ", "import ", "@hookimpl"))]
    assert len(written) <= EXAMPLE_LINES
    (folder / f"example_{hook}.py").write_text(match[2])
    return import_module(f"example_{hook}")


CHOSEN_BY = {
    "llm_router_register_engines": "engine",
    "llm_router_register_placement_policies": "placement_policy",
    "llm_router_register_eviction_policies": "eviction_policy",
}
"""Hook → the option that chooses one of what it supplies."""


@pytest.mark.asyncio
@pytest.mark.parametrize("hook", sorted(set(hooks()) - {"llm_router_register_commands"}))
async def test_the_example_of_a_hook_works(
    hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = example(hook, tmp_path)
    options: dict[str, Any] = {"models_max": 2}
    if hook in CHOSEN_BY:
        [supplied] = getattr(module, hook)(None)
        options[CHOSEN_BY[hook]] = supplied.name
    async with make_router(tmp_path, module, **options) as router:
        for name in ("a", "b", "c"):  # one of which makes way
            async with router.acquire(name) as llm:
                reply = await llm.chat([{"role": "user", "content": "hello"}])
                assert reply.text == "echo: hello"
            await router.sleep(name)
        assert router.overview().plugin_failures == {}


def test_the_example_of_a_command_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = example("llm_router_register_commands", tmp_path)
    group = click.Group("llm-router-mw")
    module.llm_router_register_commands(group)
    assert CliRunner().invoke(group, ["hello"]).output == "hello\n"


def test_the_objects_of_the_examples_keep_to_what_is_asked_of_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def supplied(kind: str) -> Any:
        hook = f"llm_router_register_{kind}"
        [thing] = getattr(example(hook, tmp_path), hook)(None)
        return thing

    check_model_source(supplied("model_sources"))
    check_device_probe(supplied("device_probes"))
    check_estimator(supplied("estimators"), tmp_path)
    check_placement_policy(supplied("placement_policies"), tmp_path)
    check_eviction_policy(supplied("eviction_policies"))
    check_chat_format(example("llm_router_register_chat_formats", tmp_path).Polite)


def test_the_changelog_tells_of_the_plugin_api_under_a_heading_of_its_own() -> None:
    _, _, told = (ROOT / "CHANGELOG.md").read_text().partition("\n### Plugin API\n")
    told = re.split(r"^##", told, flags=re.MULTILINE)[0]
    assert f"Version {hookspecs.API_VERSION}" in told
    assert set(re.findall(r"`(llm_router_(?!mw)\w+)`", told)) == set(hooks())


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


def test_the_tests_that_are_shown_for_a_plugin_pass(tmp_path: Path) -> None:
    [shown] = [each for each in blocks(DOCS / "plugins" / "testing.md") if each[1] == "python"]
    (tmp_path / "test_shown.py").write_text(shown.text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert "2 passed" in run.stdout, run.stdout + run.stderr


def test_every_check_is_documented() -> None:
    checks = {name for name in testing.__all__ if name.startswith("check_")}
    text = (DOCS / "plugins" / "testing.md").read_text()
    assert set(re.findall(r"(check_\w+)\(", FENCE.sub("", text))) == checks


def test_every_distribution_is_named_with_the_hooks_that_it_has() -> None:
    text = (DOCS / "plugins" / "distributing.md").read_text()
    named = set(re.findall(r"^\| \[`([\w-]+)`\]", text, re.MULTILINE))
    assert named == {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
