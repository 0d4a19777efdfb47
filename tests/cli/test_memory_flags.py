"""The flags about memory arrive as options of the router, in its own words."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from llm_router_mw.cli.memory_flags import amounts, memory_flags
from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.memory.allowance import allowance_bytes
from llm_router_mw.types import LoadOptions
from tests.memory.test_inventory import host


def options(*arguments: str) -> dict[str, Any]:
    given: dict[str, Any] = {}

    @click.command()
    @memory_flags
    def command(**taken: Any) -> None:
        given.update(taken)

    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return given


def test_without_flags_everything_is_as_without_options() -> None:
    config = parse_config(options())
    assert config.models_memory_margin == {"default": RouterConfig().models_memory_margin}
    same = parse_config(models_memory_margin=config.models_memory_margin)
    assert config == same


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("512", {"default": 512}),
        ("host=4096,512", {"host": 4096, "default": 512}),
        ("0000:c1:00.0=0", {"0000:c1:00.0": 0}),
        (" host = 4096 , default=0 ", {"host": 4096, "default": 0}),
    ],
)
def test_amounts_are_for_all_devices_or_by_name(text: str, found: dict[str, int]) -> None:
    assert amounts(text) == found


@pytest.mark.parametrize("text", ["much", "host=", "=5", "-1", "1.5", "host=1,host=2", "1,2"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        amounts(text)


def test_each_flag_arrives() -> None:
    config = parse_config(
        options(
            *("--models-memory-margin", "host=4096", "--memory-limit", "20000"),
            *("--watch-memory-seconds", "1", "--require-estimate", "--no-charge-mmap"),
            *("-fitc", "2048", "--min-gpu-layers", "3", "--no-partial-offload"),
            *("--prefer", "coexist"),
        )
    )
    assert config.models_memory_margin == {"host": 4096}
    assert allowance_bytes(config.memory_limit, host()) == 20_000 * 1024**2
    assert config.watch_memory_seconds == 1
    assert config.require_estimate
    assert not config.charge_mmap
    assert config.prefer == "coexist"
    assert config.load == LoadOptions(fit_ctx=2048, min_gpu_layers=3, allow_partial_offload=False)
