"""``llm-router-mw plugin new`` writes a distribution that works as it is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llm_router_mw import hookspecs
from llm_router_mw.cli import main

FOUND = """
import sys
from importlib import metadata
from pathlib import Path

import pytest

folder = Path(sys.argv[1])
sys.path.insert(0, str(folder / "src"))
# As if it were installed.
info = folder / "src" / "llm_router_mw_my_policy-0.1.0.dist-info"
info.mkdir()
about = "Metadata-Version: 2.1\\nName: llm-router-mw-my-policy\\nVersion: 0.1.0\\n"
(info / "METADATA").write_text(about)
(info / "entry_points.txt").write_text("[llm_router_mw]\\nmy-policy = llm_router_mw_my_policy\\n")
options = ["-q", "-p", "no:cacheprovider", f"--rootdir={folder}"]
sys.exit(pytest.main([*options, str(folder / "tests")]))
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plugin", "new", *arguments])


def test_what_is_written_passes_its_own_test(tmp_path: Path) -> None:
    result = run("my-policy", "--directory", str(tmp_path))
    assert result.exit_code == 0, result.output
    folder = tmp_path / "llm-router-mw-my-policy"
    script = tmp_path / "found.py"
    script.write_text(FOUND)
    tests = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "2 passed" in tests.stdout


def test_what_it_tells_to_install_is_there_for_any_pip(tmp_path: Path) -> None:
    told = run("other", "--directory", str(tmp_path)).output
    folder = tmp_path / "llm-router-mw-other"
    assert told.endswith(f"  cd {folder} && pip install -e '.[test]' && pytest\n")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"].keys() == {"test"}


def test_it_is_found_by_an_entry_point_and_says_what_it_was_written_for(tmp_path: Path) -> None:
    run("llm-router-mw-other", "--directory", str(tmp_path))
    folder = tmp_path / "llm-router-mw-other"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "llm-router-mw-other"
    assert project["entry-points"]["llm_router_mw"] == {"other": "llm_router_mw_other"}
    module = (folder / "src" / "llm_router_mw_other" / "__init__.py").read_text()
    assert f"llm_router_api = {hookspecs.API_VERSION}\n" in module


def test_nothing_is_left_to_fill_in(tmp_path: Path) -> None:
    run("mine", "--directory", str(tmp_path))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert not any("<<" in path.read_text() for path in files)


@pytest.mark.parametrize("name", ["My-Plugin", "a--b", "-a", "a_b", "1a", "llm-router-mw-", "é"])
def test_a_name_that_would_not_do_is_refused(name: str, tmp_path: Path) -> None:
    result = run("--directory", str(tmp_path), "--", name)
    assert result.exit_code == 2
    assert "small letters" in result.output
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    run("mine", "--directory", str(tmp_path))
    result = run("mine", "--directory", str(tmp_path))
    assert result.exit_code == 1
    assert "exists" in result.output
