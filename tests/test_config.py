"""Options are checked where they come in, and an error names the option."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw import config
from llm_router_mw.config import ModelEntry, RouterConfig, parse_config
from llm_router_mw.errors import ConfigError
from llm_router_mw.types import LoadOptions, LoraAdapter

# Every option with a value that is not its default.
ROUTER_OPTIONS: dict[str, Any] = {
    "models_dir": "models",
    "models_max": 0,
    "models_autoload": False,
    "engine": "inline",
    "eviction_policy": "largest-first",
    "spare_worker": False,
    "max_queue": 7,
    "max_wait_seconds": 0.0,
    "queue_timeout_seconds": 1.5,
    "max_lease_seconds": 2.5,
    "client_stall_seconds": 3.5,
    "load_stall_seconds": 4.5,
    "stop_timeout_seconds": 5.5,
}
LOAD_OPTIONS: dict[str, Any] = {
    "n_ctx": 4096,
    "n_parallel": 1,
    "kv_unified": False,
    "share_prefix": True,
    "context_shift": True,
    "n_batch": 64,
    "n_threads": 2,
    "n_gpu_layers": 0,
    "use_mmap": False,
    "pooling": "mean",
    "chat_format": "chatml",
    "chat_template": "{{ messages }}",
    "lora": (LoraAdapter(path="/adapters/a.gguf", scale=0.5),),
}


def test_every_option_is_tried_here() -> None:
    assert {*ROUTER_OPTIONS, "models", "load"} == set(RouterConfig.__struct_fields__)
    assert set(LOAD_OPTIONS) == set(LoadOptions.__struct_fields__)


def test_without_options_everything_has_its_default() -> None:
    assert parse_config() == RouterConfig()


@pytest.mark.parametrize(("name", "value"), ROUTER_OPTIONS.items())
def test_an_option_of_the_router_is_taken(name: str, value: Any) -> None:
    assert getattr(RouterConfig(), name) != value
    assert parse_config({name: value}) == RouterConfig(**{name: value})


@pytest.mark.parametrize(("name", "value"), LOAD_OPTIONS.items())
def test_a_load_option_is_the_default_of_all_models(name: str, value: Any) -> None:
    assert getattr(LoadOptions(), name) != value
    parsed = parse_config({name: value}, models={"a": "a.gguf"})
    assert parsed.load == parsed.models[0].options == LoadOptions(**{name: value})


def test_keywords_win_over_the_mapping() -> None:
    assert parse_config({"models_max": 1}, models_max=2).models_max == 2


def test_given_mappings_are_left_as_they_are() -> None:
    options = {"n_ctx": 512, "models": {"a": {"path": "a.gguf", "n_ctx": 64}}}
    parse_config(options)
    assert options == {"n_ctx": 512, "models": {"a": {"path": "a.gguf", "n_ctx": 64}}}


@pytest.mark.parametrize("name", [*ROUTER_OPTIONS, *LOAD_OPTIONS])
def test_a_value_of_the_wrong_type_is_an_error_that_names_the_option(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^option: .*\$\.{name}`"):
        parse_config({name: [object]})


@pytest.mark.parametrize(
    "options", [{"models_max": True}, {"models_max": 4.5}, {"n_ctx": "512"}, {"use_mmap": 1}]
)
def test_types_are_not_guessed(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}"):
        parse_config(options)


LIMITS = [
    (name, limit)
    for limits in (config._LIMITS, config._LOAD_LIMITS)
    for name, limit in limits.items()
]


@pytest.mark.parametrize(("name", "limits"), LIMITS)
def test_the_limits_themselves_are_allowed(name: str, limits: tuple[float, float]) -> None:
    for value in limits:
        parsed = parse_config({name: value})
        assert value in (getattr(parsed, name, None), getattr(parsed.load, name, None))


@pytest.mark.parametrize(("name", "limits"), LIMITS)
def test_a_value_beyond_its_limits_is_an_error(name: str, limits: tuple[float, float]) -> None:
    low, high = limits
    for value in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=f"option: {name} is .* from {low:g} to "):
            parse_config({name: value})


def test_no_number_is_without_limits() -> None:
    numbers = {
        name
        for struct in (RouterConfig(), LoadOptions())
        for name in struct.__struct_fields__
        if type(getattr(struct, name)) in (int, float)
    }
    assert numbers == {name for name, _ in LIMITS}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_seconds_are_finite(value: float) -> None:
    with pytest.raises(ConfigError, match=r"queue_timeout_seconds is (nan|inf)"):
        parse_config(queue_timeout_seconds=value)


@pytest.mark.parametrize("name", ["modles_dir", "load", "path"])
def test_an_unknown_option_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^unknown option '{name}'; known are .*models_dir, .*"):
        parse_config({name: 1})


def test_all_unknown_options_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown option 'a', 'b'; known are"):
        parse_config(b=1, a=1)


def test_a_directory_may_be_a_path_object() -> None:
    assert parse_config(models_dir=Path("models")).models_dir == "models"
    assert parse_config(models_dir=None).models_dir is None


@pytest.mark.parametrize("value", ["a.gguf", Path("a.gguf"), {"path": "a.gguf"}])
def test_a_model_is_named_with_a_path_or_a_dict(value: Any) -> None:
    assert parse_config(models={"a": value}).models == (ModelEntry(id="a", path="a.gguf"),)


def test_a_model_may_have_names_tags_and_options_of_its_own() -> None:
    (entry,) = parse_config(
        n_ctx=512,
        n_batch=64,
        models={
            "a": {
                "path": Path("a.gguf"),
                "aliases": ["b"],
                "tags": ["t"],
                "n_ctx": 1024,
                "pooling": "cls",
            }
        },
    ).models
    assert entry == ModelEntry(
        id="a",
        path="a.gguf",
        aliases=("b",),
        tags=("t",),
        options=LoadOptions(n_ctx=1024, n_batch=64, pooling="cls"),
    )


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a.gguf"], "models must map names to paths or to dicts with a 'path'"),
        (None, "models must map names to paths"),
        ({"a": 5}, "model 'a' needs a path, or a dict with a 'path'"),
        ({"a": {"n_ctx": 5}}, "model 'a' needs a path, or a dict with a 'path'"),
        ({"a": {"path": 5}}, r"model 'a': Expected `str`, got `int` - at `\$.path`"),
        ({5: "a.gguf"}, r"model 5: Expected `str`, got `int` - at `\$.id`"),
        ({"a": {"path": "x", "aliases": "b"}}, r"model 'a': Expected `array`, .* `\$.aliases`"),
        ({"a": {"path": "x", "tags": [1]}}, r"model 'a': Expected `str`, .* `\$.tags\[0\]`"),
        ({"a": {"path": "x", "ctx": 1}}, "model 'a': Object contains unknown field `ctx`"),
        ({"a": {"path": "x", "n_ctx": "1"}}, r"model 'a': Expected `int`, .* `\$.n_ctx`"),
        ({"a": {"path": "x", "n_ctx": -1}}, "model 'a': n_ctx is -1; it must be from 0 to"),
        ({"a": {"path": "x", "pooling": "max"}}, "model 'a': Invalid enum value 'max'"),
    ],
)
def test_what_is_wrong_with_a_model_is_said_with_its_name(models: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        parse_config(models=models)


# LoRA adapters


@pytest.mark.parametrize(
    "given",
    [
        ["/adapters/a.gguf"],
        (Path("/adapters/a.gguf"),),
        [{"path": "/adapters/a.gguf"}],
        [{"path": Path("/adapters/a.gguf"), "scale": 1}],
        [LoraAdapter(path="/adapters/a.gguf")],
    ],
)
def test_an_adapter_is_a_path_or_a_dict(given: Any) -> None:
    assert parse_config(lora=given).load.lora == (LoraAdapter(path="/adapters/a.gguf"),)


def test_relative_paths_of_adapters_begin_at_the_working_directory() -> None:
    [adapter] = (
        parse_config(models={"a": {"path": "a.gguf", "lora": ["x/b.gguf"]}}).models[0].options.lora
    )
    assert adapter.path == str(Path("x/b.gguf").absolute())


@pytest.mark.parametrize(
    "given",
    [
        "a.gguf",
        {"path": "a.gguf"},
        7,
        [7],
        [None],
        [{}],
        [{"scale": 1}],
        [{"path": 7}],
        [{"path": "a.gguf", "scale": "much"}],
        [{"path": "a.gguf", "scale": math.nan}],
        [{"path": "a.gguf", "scale": math.inf}],
        [{"path": "a.gguf", "strength": 1}],
    ],
)
def test_what_is_no_adapter_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"model 'a'.*lora"):
        parse_config(models={"a": {"path": "a.gguf", "lora": given}})
