"""The floors of the package: who may import whom, and which libraries have one home only."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "llm_router_mw"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

# Lowest floor first. A file imports from lower floors and from its own group: what a "+" joins, or
# its own folder. Groups of one floor know nothing of each other.
FLOORS = {
    "package": ["__init__"],
    "0 words": ["types + errors"],
    "1 contracts": ["protocols + hookspecs + wire"],
    "2 basics": [
        "config + gguf + hub_reference + wrong_options",
        "faults",
        "lateness",
        "runtime_directory",
        "sampling_limits",
        "snapshot_file",
        "standard_streams",
        "context_shape",
        "shortage",
        "tensor_overrides",
        "units",
    ],
    "2 files of a hub": ["hub"],
    "3 knowledge": ["catalog", "memory", "kv_store"],
    "4 decision": ["scheduler"],
    "5 engine and conductor": ["engine + worker", "router", "simulator"],
    "5 a router for several processes": ["shared"],
    "6 dialects": ["api"],
    "7 doors": ["asgi + wsgi + lifespan + access + cli + ui + testing + demo_models"],
    "8 shipped plugins": ["default_plugins"],
}
# Who may import these parts of the package; everybody else reaches them by dotted name.
RESERVED = {
    "engine": ["engine", "worker"],
    "worker": ["engine", "worker"],
    "default_plugins": ["default_plugins"],
}
# Who may import these libraries; the web process must not pay for llama.cpp, nor a worker for the
# web framework and the plugin manager.
LIBRARIES = {
    "PIL": ["simulator.png"],
    "asyncio": [],
    "httpx": ["hub"],
    "llama_cpp": ["engine"],
    "pluggy": ["hookspecs", "router.plugins"],
    "pynvml": ["memory.nvml"],
    "starlette": ["api", "asgi", "access", "wsgi", "cli", "ui", "testing"],
}
MAX_LINES = 500


def _places() -> dict[str, tuple[int, str]]:
    """Return part of the package → (height of its floor, group)."""
    return {
        part: (height, group)
        for height, groups in enumerate(FLOORS.values())
        for group in groups
        for part in group.split(" + ")
    }


@dataclass(frozen=True)
class Import:
    """One import statement's target, as a dotted name."""

    where: str
    source: str
    target: str


class Tree:
    """The modules of a package under *root*, and what they import outside of TYPE_CHECKING."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = {self._module(path): path for path in sorted(root.rglob("*.py"))}
        self.imports = [
            found for module, path in self.files.items() for found in self._imports(module, path)
        ]

    def where(self, module: str, line: int) -> str:
        return f"{self.files[module].relative_to(self.root.parent)}:{line}"

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.root.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _imports(self, module: str, path: Path) -> Iterator[Import]:
        is_package = path.name == "__init__.py"
        for node in _nodes(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = _base(node, module, is_package)
                names = [f"{base}.{alias.name}" for alias in node.names]
                # A name that is no module belongs to the module that it is taken from.
                targets = [name if name in self.files else base for name in names]
            else:
                continue
            for target in dict.fromkeys(targets):
                yield Import(self.where(module, node.lineno), module, target)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk like ``ast.walk``, past the bodies of ``if TYPE_CHECKING``."""
    yield node
    children: Iterator[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        children = iter(node.orelse)
    for child in children:
        yield from _nodes(child)


def _base(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    folder = parts[: len(parts) - node.level + is_package]
    return ".".join([*folder, *([node.module] if node.module else [])])


def _within(module: str) -> str:
    """Return the dotted name inside the package; ``__init__`` is the package itself."""
    return module.partition(".")[2] or "__init__"


def _part(module: str) -> str:
    return _within(module).partition(".")[0]


def _is_under(module: str, homes: list[str]) -> bool:
    return any(f"{_within(module)}.".startswith(f"{home}.") for home in homes)


def _inner(tree: Tree) -> Iterator[Import]:
    return (found for found in tree.imports if found.target.partition(".")[0] == tree.root.name)


def placed(tree: Tree) -> Iterator[str]:
    """Every file has a floor."""
    places = _places()
    for module in tree.files:
        if _part(module) not in places:
            yield f"{tree.where(module, 1)}: {module} has no floor; add it to FLOORS"


def floors_kept(tree: Tree) -> Iterator[str]:
    """A file imports from lower floors or from its own group."""
    places = _places()
    for found in _inner(tree):
        source, target = places.get(_part(found.source)), places.get(_part(found.target))
        if source and target and source != target and source[0] <= target[0]:
            yield f"{found.where}: imports {found.target}, which is not on a lower floor"


def reserved_kept(tree: Tree) -> Iterator[str]:
    """Some parts are imported by few, or by nobody."""
    for found in _inner(tree):
        homes = RESERVED.get(_part(found.target))
        if homes is not None and not _is_under(found.source, homes):
            yield f"{found.where}: imports {found.target}, which only {' and '.join(homes)} may"


def libraries_kept(tree: Tree) -> Iterator[str]:
    """Some libraries are imported in few places, or nowhere."""
    for found in tree.imports:
        library = found.target.partition(".")[0]
        homes = LIBRARIES.get(library)
        if homes is not None and not _is_under(found.source, homes):
            yield f"{found.where}: imports {library}, allowed in: {', '.join(homes) or 'no file'}"


def no_circles(tree: Tree) -> Iterator[str]:
    """No module imports itself by way of others."""
    graph: dict[str, list[Import]] = {}
    for found in _inner(tree):
        graph.setdefault(found.source, []).append(found)
    done: set[str] = set()

    def visit(module: str, trail: list[Import]) -> Iterator[str]:
        for found in graph.get(module, []):
            step = [*trail, found]
            sources = [each.source for each in step]
            if found.target in sources:
                circle = [*sources[sources.index(found.target) :], found.target]
                yield f"{found.where}: imports in a circle: {' → '.join(circle)}"
            elif found.target not in done:
                yield from visit(found.target, step)
        done.add(module)

    for module in graph:
        if module not in done:
            yield from visit(module, [])


def short_enough(tree: Tree) -> Iterator[str]:
    """Files stay small."""
    for module, path in tree.files.items():
        lines = len(path.read_text().splitlines())
        if lines > MAX_LINES:
            yield f"{tree.where(module, lines)}: the file has more than {MAX_LINES} lines"


RULES = [placed, floors_kept, reserved_kept, libraries_kept, no_circles, short_enough]


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule: object) -> None:
    assert callable(rule)
    broken = list(rule(Tree(SOURCE)))
    assert not broken, "\n".join([str(rule.__doc__), *broken])


def test_the_package_is_really_read() -> None:
    tree = Tree(SOURCE)
    assert f"{PACKAGE}.types.delta" in tree.files
    assert any(found.target == "llama_cpp" for found in tree.imports)


def broken_rules(root: Path, files: dict[str, str]) -> list[str]:
    """Return what the rules say about a package that consists of *files*."""
    package = root / PACKAGE
    for name, code in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(code))
    tree = Tree(package)
    return [problem for rule in RULES for problem in rule(tree)]


@pytest.mark.parametrize(
    ("name", "code", "problem"),
    [
        ("config.py", "import llm_router_mw.catalog", ":1: imports llm_router_mw.catalog, which"),
        ("config.py", "from llm_router_mw import catalog", ":1: imports llm_router_mw.catalog"),
        ("config.py", "from llm_router_mw.router import Router", ":1: imports llm_router_mw.rout"),
        ("config.py", "def f():\n  import llm_router_mw.router", ":2: imports llm_router_mw.rou"),
        ("config.py", "from . import catalog", ":1: imports llm_router_mw.catalog, which is not"),
        ("config.py", "from .catalog import Catalog", ":1: imports llm_router_mw.catalog, which"),
        ("types/x.py", "from ..config import y", ":1: imports llm_router_mw.config, which is not"),
        ("catalog/x.py", "import llm_router_mw.memory", ":1: imports llm_router_mw.memory, which"),
        ("router/x.py", "import llm_router_mw.engine", ":1: imports llm_router_mw.engine, which"),
        ("worker/x.py", "import llm_router_mw.router", ":1: imports llm_router_mw.router, which"),
        ("__init__.py", "from llm_router_mw.types import x", ":1: imports llm_router_mw.types"),
        ("api/x.py", "import llm_router_mw.engine", "which only engine and worker may"),
        ("api/x.py", "import llm_router_mw.worker", "which only engine and worker may"),
        ("cli/x.py", "import llm_router_mw.default_plugins", "which only default_plugins may"),
        ("new.py", "", ":1: llm_router_mw.new has no floor; add it to FLOORS"),
        ("config.py", "import asyncio.events", ":1: imports asyncio, allowed in: no file"),
        ("worker/x.py", "import llama_cpp", ":1: imports llama_cpp, allowed in: engine"),
        ("router/x.py", "from pluggy import y", ":1: imports pluggy, allowed in: hookspecs, rou"),
        ("router/plugins2.py", "import pluggy", ":1: imports pluggy, allowed in: hookspecs, rou"),
        ("router/x.py", "import starlette.types", ":1: imports starlette, allowed in: api, asgi"),
        ("memory/x.py", "if True:\n  import pynvml", ":2: imports pynvml, allowed in: memory.nvml"),
        ("types/x.py", "import llm_router_mw.types.x", "a circle: llm_router_mw.types.x → llm_r"),
        (
            "config.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  pass\nelse:\n  import asyncio",
            ":5: imports asyncio",
        ),
        ("config.py", "\n" * 501, ":501: the file has more than 500 lines"),
    ],
)
def test_a_broken_rule_is_reported_with_file_and_line(
    tmp_path: Path, name: str, code: str, problem: str
) -> None:
    others = {f"{part}/__init__.py": "" for part in ("catalog", "engine", "router", "worker")}
    broken = broken_rules(tmp_path, {**others, name: code})
    assert any(line.startswith(f"{PACKAGE}/{name}:") and problem in line for line in broken), broken


def test_a_circle_is_reported_whole_and_once(tmp_path: Path) -> None:
    broken = broken_rules(
        tmp_path,
        {
            "api/a.py": "def lazily():\n  from llm_router_mw.api.b import x",
            "api/b.py": "from llm_router_mw.api import c",
            "api/c.py": "import llm_router_mw.api.a",
        },
    )
    names = [f"{PACKAGE}.api.{letter}" for letter in "abca"]
    assert broken == [f"{PACKAGE}/api/c.py:1: imports in a circle: {' → '.join(names)}"]


def test_what_the_design_allows_is_not_reported(tmp_path: Path) -> None:
    allowed = {
        "__init__.py": """
            import typing
            if typing.TYPE_CHECKING:
                from llm_router_mw.router import Router
        """,
        "errors.py": "from llm_router_mw.types import Failure",
        "types/__init__.py": "from llm_router_mw.types.delta import Delta",
        "types/delta.py": "",
        "hookspecs.py": """
            from typing import TYPE_CHECKING
            import pluggy
            if TYPE_CHECKING:
                from llm_router_mw.config import RouterConfig
        """,
        "engine/engine.py": "import llama_cpp",
        "worker/child.py": "from llm_router_mw.engine.engine import Engine",
        "router/__init__.py": "from llm_router_mw import __version__",
        "router/plugins.py": "from pluggy import PluginManager",
        "api/app.py": "from starlette.types import Scope",
        "cli/main.py": "from llm_router_mw.asgi import app",
        "asgi.py": "from .api.app import x",
        "default_plugins/engines.py": "from ..router import Router",
    }
    assert broken_rules(tmp_path, allowed) == []
