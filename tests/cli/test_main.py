from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from llm_router_mw import __version__
from llm_router_mw.cli import main


def test_it_tells_its_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output.strip().endswith(__version__)


def test_help_names_the_commands() -> None:
    output = CliRunner().invoke(main, ["-h"]).output
    assert "demo" in output
    assert "serve" in output


@pytest.mark.parametrize("group", [[], ["cache"], ["host"], ["plugin"]])
def test_no_line_about_a_command_is_cut_off(group: list[str]) -> None:
    result = CliRunner().invoke(main, [*group, "--help"], terminal_width=78)
    assert "Commands:" in result.output
    assert "..." not in result.output.replace("[ARGS]...", "")


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["brew"]).exit_code == 2


def test_the_web_process_never_imports_the_engine() -> None:
    code = "import sys, llm_router_mw.cli; sys.exit('llama_cpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
