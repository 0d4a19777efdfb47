"""The flags about scheduling arrive as options of the router, in its own words."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from llm_router_mw.cli.scheduling_flags import groups_of, scheduling_flags
from llm_router_mw.config import Group, RouterConfig, parse_config
from llm_router_mw.errors import ConfigError


def options(*arguments: str, **env: str) -> dict[str, Any]:
    given: dict[str, Any] = {}

    @click.command()
    @scheduling_flags
    def command(**taken: Any) -> None:
        given.update(taken)

    result = CliRunner().invoke(command, arguments, env=env)
    if result.exit_code:
        raise click.UsageError(result.output)
    return given


def test_without_flags_everything_is_as_without_options() -> None:
    assert parse_config(options()) == RouterConfig()


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--models-max", "0"], "models_max", 0),
        (["--workers-max", "9"], "workers_max", 9),
        (["--no-models-autoload"], "models_autoload", False),
        (["--preload", "a,b", "--preload", "c"], "preload", ("a", "b", "c")),
        (["--pin", "a", "--pin", "b,c"], "pin", ("a", "b", "c")),
        (["--prefetch"], "prefetch", True),
        (["--eviction-policy", "lfu"], "eviction_policy", "lfu"),
        (["--evict-to", "context"], "evict_to", "context"),
        (["--min-resident-seconds", "2.5"], "min_resident_seconds", 2.5),
        (["--max-wait-seconds", "0"], "max_wait_seconds", 0.0),
        (["--max-queue", "7"], "max_queue", 7),
        (["--max-queue-per-model", "3"], "max_queue_per_model", 3),
        (["--timeout", "20"], "queue_timeout_seconds", 20.0),
        (["-to", "20"], "queue_timeout_seconds", 20.0),
        (["--max-keep-alive-seconds", "60"], "max_keep_alive_seconds", 60.0),
        (["--sleep-idle-seconds", "300"], "sleep_idle_seconds", 300.0),
        (["--sleep-level", "context"], "sleep_level", "context"),
        (["--unload-idle-seconds", "900"], "unload_idle_seconds", 900.0),
        (["--max-lease-seconds", "600"], "max_lease_seconds", 600.0),
        (["--client-stall-seconds", "5"], "client_stall_seconds", 5.0),
        (["--load-stall-seconds", "30"], "load_stall_seconds", 30.0),
        (["--worker-stall-seconds", "60"], "worker_stall_seconds", 60.0),
    ],
)
def test_each_flag_arrives(arguments: list[str], name: str, value: Any) -> None:
    assert parse_config(options(*arguments)) == RouterConfig(**{name: value})


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("LLAMA_ARG_MODELS_MAX", "2", "models_max", 2),
        ("LLAMA_ARG_MODELS_AUTOLOAD", "0", "models_autoload", False),
        ("LLAMA_ARG_TIMEOUT", "30", "queue_timeout_seconds", 30.0),
    ],
)
def test_llama_servers_variables_count(variable: str, text: str, name: str, value: Any) -> None:
    assert options(**{variable: text})[name] == value


def test_groups_have_a_mode_and_members() -> None:
    flags = ("--group", "exclusive=a,b", "--group", "together= c , d")
    assert list(parse_config(options(*flags)).groups.values()) == [
        Group(members=("a", "b"), mode="exclusive"),
        Group(members=("c", "d"), mode="together"),
    ]


def test_a_group_without_a_mode_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="exclusive=a,b"):
        groups_of(("a,b",))


def test_a_group_of_another_mode_is_refused_by_the_router() -> None:
    with pytest.raises(ConfigError, match="groups"):
        parse_config(groups=groups_of(("mostly=a,b",)))


@pytest.mark.parametrize(
    "arguments",
    [("--timeout", "soon"), ("--evict-to", "disk"), ("--sleep-level", "deep"), ("--group", "a")],
)
def test_a_bad_value_is_refused(arguments: tuple[str, str]) -> None:
    with pytest.raises(click.UsageError, match="Invalid value"):
        options(*arguments)
