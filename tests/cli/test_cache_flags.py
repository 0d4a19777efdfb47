"""The flags about saved conversations arrive as options of the router, in its own words."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from llm_router_mw.cli.cache_flags import cache_flags
from llm_router_mw.config import RouterConfig, parse_config


def options(*arguments: str, **env: str) -> dict[str, Any]:
    given: dict[str, Any] = {}

    @click.command()
    @cache_flags
    def command(**taken: Any) -> None:
        given.update(taken)

    result = CliRunner().invoke(command, arguments, env=env)
    assert result.exit_code == 0, result.output
    return given


def test_without_flags_everything_is_as_without_options() -> None:
    assert parse_config(options()) == RouterConfig()


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--no-kv-cache"], "kv_cache", False),
        (["--cache-ram", "100"], "cache_ram", 100),
        (["-cram", "-1"], "cache_ram", -1),
        (["--kv-cache-dir", "/x"], "kv_cache_dir", "/x"),
        (["--slot-save-path", "/x"], "kv_cache_dir", "/x"),
        (["--kv-cache-disk", "7"], "kv_cache_disk", 7),
        (["--kv-cache-ttl-seconds", "60"], "kv_cache_ttl_seconds", 60.0),
        (["--sleep-handler-timeout-seconds", "2"], "sleep_handler_timeout_seconds", 2.0),
        (["--warm-weights"], "warm_weights", True),
    ],
)
def test_each_flag_arrives(arguments: list[str], name: str, value: Any) -> None:
    assert parse_config(options(*arguments)) == RouterConfig(**{name: value})


def test_llama_servers_variable_counts() -> None:
    assert parse_config(options(LLAMA_ARG_CACHE_RAM="0")).cache_ram == 0
