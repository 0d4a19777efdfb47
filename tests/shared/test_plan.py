"""A plan is all that another process needs to make the same router, and knows equal ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_router_mw import runtime_directory
from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.errors import ConfigError
from llm_router_mw.shared.plan import Plan, is_relevant, plan_for


def plan(*plugins: object, **options: Any) -> Plan:
    return plan_for(parse_config(options), plugins)


def test_it_says_what_the_router_is_made_of_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    made = plan("a.b", "c", mode="shared", shared_name="ours", shared_grace_seconds=5, n_ctx=64)
    assert made.config == parse_config(n_ctx=64)
    assert made.plugins == ("a.b", "c")
    assert made.folder == str(tmp_path)
    assert made.environ["HF_TOKEN"] == "hf_x"
    assert (made.name, made.title, made.grace_seconds) == ("ours", "ours", 5.0)


def test_a_single_plugin_may_be_given_by_itself() -> None:
    assert plan_for(RouterConfig(), "a.b").plugins == ("a.b",)


def test_without_a_name_the_folder_is_its_title() -> None:
    assert plan().title == os.getcwd()


def test_it_survives_the_way_to_another_process() -> None:
    options = {"plugin_options": {"a": {"b": [1, 2.5, None, {"c": True}]}}, "hf_token": "hf_x"}
    made = plan("a.b", models={"m": {"path": "m.gguf", "n_ctx": 5, "pinned": True}}, **options)
    there = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Plan)
    assert there == made
    assert there.fingerprint == made.fingerprint


DIRECTORIES = [name for name in RouterConfig.__struct_fields__ if name.endswith("_dir")]


@pytest.mark.parametrize("option", DIRECTORIES)
def test_a_directory_is_the_same_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    here = plan(**{option: "some"})
    assert getattr(here.config, option) == str(tmp_path / "some")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert plan(**{option: "../some"}).fingerprint == here.fingerprint
    assert plan(**{option: "some"}).fingerprint != here.fingerprint


def test_a_file_is_so_too_and_a_model_of_the_hub_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = plan(models={"a": {"path": "a.gguf"}, "b": "hf://owner/name:Q4_K_M"}).config.models
    paths = {entry.id: entry.path for entry in models}
    assert paths == {"a": str(tmp_path / "a.gguf"), "b": "hf://owner/name:Q4_K_M"}


def change_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    return plan()


@pytest.mark.parametrize(
    "change",
    [
        change_environment,
        lambda *_: plan("a.b"),
        lambda *_: plan(models_max=5),
        lambda *_: plan(n_ctx=5),
        lambda *_: plan(plugin_options={"a": {"b": 1}}),
    ],
)
def test_what_makes_another_router_makes_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., Plan]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = plan().fingerprint
    assert change(tmp_path, monkeypatch).fingerprint != before


@pytest.mark.parametrize(
    "other",
    [
        {"mode": "shared"},
        {"shared_name": "ours"},
        {"shared_grace_seconds": 1.0},
        {"plugin_options": {"b": {"d": 2, "c": 1}, "a": {}}},
    ],
)
def test_nothing_else_does(
    tmp_path: Path, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    like = {"plugin_options": {"a": {}, "b": {"c": 1, "d": 2}}}
    before = plan(**like).fingerprint
    monkeypatch.setenv("PORT", "80")
    monkeypatch.chdir(tmp_path)
    assert plan(**{**like, **other}).fingerprint == before


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("LLM_ROUTER_ADMIN_KEY", False),
        ("HF_TOKEN", True),
        ("LLAMA_CACHE", True),
        ("LLM_ROUTER_TRACE", True),
        ("PATH", False),
    ],
)
def test_a_router_heeds_some_variables(variable: str, expected: bool) -> None:
    assert is_relevant(variable) is expected


def test_a_plugin_is_given_by_its_name() -> None:
    class Plugin:
        pass

    with pytest.raises(ConfigError, match=r"the plugin .*Plugin.* is an object .* dotted name"):
        plan("a.b", Plugin())


@pytest.mark.parametrize("value", [object(), {1: 2, "a": 3}, Path("x")])
def test_options_are_what_can_be_written_down(value: object) -> None:
    with pytest.raises(ConfigError, match=r"plugin_options hold what no other process can be giv"):
        plan(plugin_options={"a": {"b": value}})


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_directory, "fcntl", None)


def without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")


def without_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")


@pytest.mark.parametrize("spoil", [without_locks, without_unix_sockets, without_forks])
def test_where_processes_cannot_meet_the_mode_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[pytest.MonkeyPatch], None]
) -> None:
    spoil(monkeypatch)
    with pytest.raises(ConfigError, match=r"mode is 'shared', and this system has no .* 'local'"):
        plan_for(RouterConfig())
