"""Values of options that hold more than one thing."""

from __future__ import annotations

import math
from pathlib import Path

import click
import pytest

from llm_router_mw.cli.values import adapters, plugin_options, split


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.gguf", "b:c.gguf"):
        Path(name).touch()


@pytest.mark.parametrize(
    ("values", "parts"),
    [((), ()), (("a",), ("a",)), (("a, b ,", "c"), ("a", "b", "c")), ((",",), ())],
)
def test_commas_part_values(values: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert split(values) == parts


@pytest.mark.usefixtures("files")
def test_adapters_have_a_scale_of_one_or_the_given_one() -> None:
    assert adapters(["a.gguf"], ["a.gguf:0.5", "b:c.gguf:-2"]) == [
        {"path": "a.gguf", "scale": 1.0},
        {"path": "a.gguf", "scale": 0.5},
        {"path": "b:c.gguf", "scale": -2.0},
    ]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("value", ["a.gguf", "a.gguf:", "a.gguf:much"])
def test_a_scale_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(click.UsageError, match="scale"):
        adapters([], [value])


@pytest.mark.usefixtures("files")
def test_a_scale_without_end_is_left_to_the_router_to_refuse() -> None:
    [adapter] = adapters([], ["a.gguf:inf"])
    assert math.isinf(adapter["scale"])


@pytest.mark.parametrize(("files", "scaled"), [(["gone"], []), ([], ["gone:1"])])
def test_a_missing_file_is_named(files: list[str], scaled: list[str]) -> None:
    with pytest.raises(click.ClickException, match="'gone' does not exist") as caught:
        adapters(files, scaled)
    assert "--lora" in caught.value.message


def test_options_of_plugins_are_json_or_text() -> None:
    given = ["quota.tokens=5", "quota.file=/a=b", 'other.keys=["x"]', "other.on=true"]
    assert plugin_options(given) == {
        "quota": {"tokens": 5, "file": "/a=b"},
        "other": {"keys": ["x"], "on": True},
    }


@pytest.mark.parametrize("value", ["quota", "quota.tokens", "tokens=5", ".tokens=5", "quota.=5"])
def test_an_option_of_a_plugin_names_it(value: str) -> None:
    with pytest.raises(click.UsageError, match=r"is not 'NAME\.OPTION=VALUE'"):
        plugin_options([value])
