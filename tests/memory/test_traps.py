"""Every test that the table of traps in the documents names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
_TABLE = (TESTS.parent / "docs" / "memory.md").read_text().split("## Traps", 1)[1]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py::[\w:]+)`", _TABLE)))
ROWS = [line for line in _TABLE.splitlines() if line.startswith("| ") and "**" not in line]


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_exists(name: str) -> None:
    file, *path = name.split("::")
    body: list[ast.stmt] = ast.parse((TESTS / file).read_text()).body
    for part in path:
        found = [
            each
            for each in body
            if isinstance(each, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and each.name == part
        ]
        assert found, f"{part} is not in {file}"
        body = found[0].body


def test_each_trap_has_a_test_or_a_reason() -> None:
    assert len(ROWS) > 40
    for row in ROWS[2:]:
        _, _, answer, _ = row.split("|")
        assert answer.strip()
