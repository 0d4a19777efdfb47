"""Options are checked where they come in, and an error names the option."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_router_mw import config
from llm_router_mw.config import Group, ModelEntry, RouterConfig, parse_config, plugin_options
from llm_router_mw.errors import ConfigError
from llm_router_mw.types import LoadOptions, LoraAdapter, ModelSettings

# Every option with a value that is not its default.
ROUTER_OPTIONS: dict[str, Any] = {
    "mode": "shared",
    "shared_name": "ours",
    "shared_grace_seconds": 0.0,
    "models_dir": "models",
    "models_max": 0,
    "workers_max": 3,
    "preload": ("a", "b"),
    "pin": ("c",),
    "prefetch": True,
    "groups": {"g": Group(members=("a", "b"), mode="together")},
    "models_autoload": False,
    "engine": "inline",
    "allow_plugins": ("one", "two"),
    "block_plugins": ("three",),
    "plugin_options": {"quota": {"tokens_per_day": 5}},
    "strict_plugins": True,
    "eviction_policy": "largest-first",
    "spare_worker": False,
    "max_queue": 7,
    "max_queue_per_model": 8,
    "max_wait_seconds": 0.0,
    "min_resident_seconds": 0.5,
    "queue_timeout_seconds": 1.5,
    "max_lease_seconds": 2.5,
    "max_keep_alive_seconds": 0.0,
    "sleep_idle_seconds": 6.5,
    "sleep_level": "context",
    "unload_idle_seconds": 7.5,
    "sleep_handler_timeout_seconds": 8.5,
    "kv_cache": False,
    "cache_ram": 100,
    "kv_cache_dir": "conversations",
    "kv_cache_disk": 200,
    "kv_cache_ttl_seconds": 9.5,
    "warm_weights": True,
    "evict_to": "full",
    "models_memory_margin": {"host": 2048, "default": 0},
    "memory_limit": {"GPU-1": 20_000},
    "watch_memory_seconds": 0.5,
    "require_estimate": True,
    "charge_mmap": False,
    "dry_runs": "always",
    "observations_dir": "seen",
    "hf_token": "hf_secret",
    "offline": True,
    "placement_policy": "host-only",
    "prefer": "coexist",
    "client_stall_seconds": 3.5,
    "load_stall_seconds": 4.5,
    "worker_stall_seconds": 5.5,
    "stop_timeout_seconds": 5.5,
}
LOAD_OPTIONS: dict[str, Any] = {
    "n_ctx": 4096,
    "n_parallel": 1,
    "kv_unified": False,
    "share_prefix": True,
    "context_shift": True,
    "n_batch": 64,
    "n_ubatch": 32,
    "n_threads": 2,
    "n_gpu_layers": 0,
    "split_mode": "row",
    "tensor_split": (3.0, 1.0),
    "main_gpu": 1,
    "min_gpu_layers": 20,
    "allow_partial_offload": False,
    "fit_ctx": 2048,
    "override_tensor": ("exps=CPU",),
    "cpu_moe": True,
    "n_cpu_moe": 3,
    "flash_attn": "on",
    "type_k": "q8_0",
    "type_v": "q8_0",
    "swa_full": True,
    "offload_kqv": False,
    "op_offload": False,
    "use_mmap": False,
    "use_mlock": True,
    "touch_context": True,
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
    with pytest.raises(ConfigError, match=rf"^option: {name}(\[0\])?: expected "):
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


@pytest.mark.parametrize("name", ["two\nlines", "\0", "a\tb"])
def test_a_name_to_share_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=r"shared_name is .* one line of text"):
        parse_config(shared_name=name)


@pytest.mark.parametrize("name", ["load_the_models_from", "path"])
def test_an_unknown_option_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^unknown option '{name}'; known are .*models_dir, .*"):
        parse_config({name: 1})


def test_all_unknown_options_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown option 'a', 'b'; known are"):
        parse_config(b=1, a=1)
    with pytest.raises(ConfigError, match="unknown option 'a', 'model_dir'; known are"):
        parse_config(model_dir="models", a=1)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("model_dir", "models_dir"), ("modelsdir", "models_dir"), ("max_models", "models_max")],
)
def test_a_misspelt_option_is_told_what_was_meant(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"^unknown option '{given}'; did you mean '{meant}'\?$"):
        parse_config({given: 1})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "shraed"}, "option: mode is 'shraed'; it must be 'local' or 'shared'"),
        ({"prefer": "cpu"}, "option: prefer is 'cpu'; it must be 'gpu' or 'coexist'"),
        (
            {"groups": {"g": {"members": ["a"], "mode": "x"}}},
            "option: groups[...].mode cannot be 'x'",
        ),
    ],
)
def test_a_word_that_is_not_known_is_told_those_that_are(options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(says)}$"):
        parse_config(options)


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
    ("said", "path"),
    [
        ({"hf_repo": "o/n"}, "hf://o/n"),
        ({"hf_repo": "o/n:q4_k_m"}, "hf://o/n:Q4_K_M"),
        ({"hf_repo": "o/n:Q8_0", "hf_file": "x/y.gguf"}, "hf://o/n/x/y.gguf"),
        ({"path": "hf://o/n:Q8_0"}, "hf://o/n:Q8_0"),
        ("hf://o/n", "hf://o/n"),
    ],
)
def test_a_model_may_be_taken_from_the_hub(said: Any, path: str) -> None:
    (entry,) = parse_config(models={"a": said}).models
    assert entry == ModelEntry(id="a", path=path)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a.gguf"], "models must map names to paths or to dicts with a 'path'"),
        (None, "models must map names to paths"),
        ({"a": 5}, "model 'a' needs a path, or a dict with a 'path'"),
        ({"a": {"n_ctx": 5}}, "model 'a' needs a path, or a dict with a 'path'"),
        ({"a": {"hf_repo": 5}}, "model 'a': hf_repo and hf_file must be text"),
        ({"a": {"hf_repo": "o/n", "hf_file": 5}}, "model 'a': hf_repo and hf_file must be text"),
        ({"a": {"hf_repo": "name"}}, "model 'a': hf_repo 'name' is not a repository"),
        ({"a": {"hf_repo": "o/n", "hf_file": "x"}}, "model 'a': hf_file 'x' is not the path of"),
        ({"a": {"hf_repo": "o/n", "path": "x"}}, "model 'a': it has a path and an hf_repo"),
        ({"a": {"path": "x", "hf_file": "x"}}, "model 'a': it has an hf_file and no hf_repo"),
        ({"a": "hf://name"}, "model 'a': hf_repo 'name/' is not a repository"),
        ({"a": {"path": 5}}, "model 'a': path: expected `str`, got `int`"),
        ({5: "a.gguf"}, "model 5: id: expected `str`, got `int`"),
        ({"a": {"path": "x", "aliases": "b"}}, "model 'a': aliases: expected `array`"),
        ({"a": {"path": "x", "tags": [1]}}, r"model 'a': tags\[0\]: expected `str`"),
        ({"a": {"path": "x", "ctx": 1}}, "model 'a': unknown option 'ctx'; did you mean 'n_ctx'"),
        ({"a": {"path": "x", "n_ctx": "1"}}, "model 'a': n_ctx: expected `int`"),
        ({"a": {"path": "x", "n_ctx": -1}}, "model 'a': n_ctx is -1; it must be from 0 to"),
        (
            {"a": {"path": "x", "pooling": "max"}},
            "model 'a': pooling is 'max'; it must be .* or 'rank'",
        ),
    ],
)
def test_what_is_wrong_with_a_model_is_said_with_its_name(models: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        parse_config(models=models)


# What is said about a model

SETTINGS: dict[str, Any] = {
    "pinned": True,
    "priority": -5,
    "sleep_idle_seconds": 5.0,
    "sleep_level": "context",
    "unload_idle_seconds": -1.0,
    "evict_to": "context",
    "preload": False,
    "kv_cache": False,
}


def test_every_setting_is_tried_here() -> None:
    assert set(SETTINGS) == set(ModelSettings.__struct_fields__)


@pytest.mark.parametrize(("name", "value"), SETTINGS.items())
def test_settings_are_no_load_options(name: str, value: Any) -> None:
    [entry] = parse_config(models={"a": {"path": "a.gguf", name: value}}).models
    assert getattr(ModelSettings(), name) != value
    assert entry.settings == ModelSettings(**{name: value})
    assert entry.options == LoadOptions()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_the_wrong_type_is_an_error_that_names_the_model(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model 'a': {name}: expected "):
        parse_config(models={"a": {"path": "a.gguf", name: [object]}})


@pytest.mark.parametrize(("name", "limits"), config._SETTINGS_LIMITS.items())
def test_a_setting_keeps_within_its_limits(name: str, limits: tuple[float, float]) -> None:
    low, high = limits
    for value in limits:
        [entry] = parse_config(models={"a": {"path": "a.gguf", name: value}}).models
        assert getattr(entry.settings, name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=f"^model 'a': {name} is .* from {low:g} to "):
            parse_config(models={"a": {"path": "a.gguf", name: value}})


@pytest.mark.parametrize("name", ["sleep_idle_seconds", "unload_idle_seconds"])
@pytest.mark.parametrize("value", [0, -0.5])
def test_no_model_sleeps_before_it_is_idle(name: str, value: float) -> None:
    wrong = f"{name} is {value:.1f}; it must be above 0, or -1 for never"
    with pytest.raises(ConfigError, match=f"^option: {wrong}"):
        parse_config({name: value})
    with pytest.raises(ConfigError, match=f"^model 'a': {wrong}"):
        parse_config(models={"a": {"path": "a.gguf", name: value}})


# Groups


def test_a_group_has_members_and_a_mode() -> None:
    groups = {"big": {"members": ["a", "b"]}, "pair": {"members": ["c"], "mode": "together"}}
    assert parse_config(groups=groups).groups == {
        "big": Group(members=("a", "b"), mode="exclusive"),
        "pair": Group(members=("c",), mode="together"),
    }


@pytest.mark.parametrize(
    "group", [["a"], {}, {"members": "a"}, {"members": ["a"], "mode": "x"}, {"member": ["a"]}]
)
def test_what_is_no_group_is_refused(group: Any) -> None:
    with pytest.raises(ConfigError, match=r"^option: groups"):
        parse_config(groups={"g": group})


# How much of each device


def test_a_margin_is_one_number_for_all_devices_or_one_for_each() -> None:
    assert parse_config(models_memory_margin=0).models_memory_margin == 0
    by_name = {"host": 4096, "cuda": 512}
    assert parse_config(models_memory_margin=by_name).models_memory_margin == by_name


@pytest.mark.parametrize("name", ["models_memory_margin", "memory_limit"])
@pytest.mark.parametrize("mib", [-1, 2**40 + 1])
def test_an_amount_of_a_device_has_limits_too(name: str, mib: int) -> None:
    with pytest.raises(ConfigError, match=f"option: {name} of 'host' is {mib}; .* MiB"):
        parse_config({name: {"host": mib, "cuda": 1}})


# Where the parts of a model go


@pytest.mark.parametrize("type_v", ["q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"])
def test_quantised_values_need_flash_attention(type_v: str) -> None:
    for flash_attn in ("auto", "on"):
        assert parse_config(type_v=type_v, flash_attn=flash_attn).load.type_v == type_v
    with pytest.raises(ConfigError, match=f"^option: type_v is '{type_v}', .* flash_attn to 'on'"):
        parse_config(type_v=type_v, flash_attn="off")


@pytest.mark.parametrize("type_v", ["f32", "f16", "bf16"])
def test_plain_values_need_none(type_v: str) -> None:
    parsed = parse_config(type_k="q8_0", type_v=type_v, flash_attn="off")
    assert parsed.load == LoadOptions(type_k="q8_0", type_v=type_v, flash_attn="off")  # type: ignore[arg-type]


@pytest.mark.parametrize("shares", [[-1.0, 2.0], [math.nan], [math.inf, 1], [0, 0]])
def test_shares_of_gpus_are_numbers_that_can_be_shares(shares: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"^option: tensor_split is .* one of them above 0"):
        parse_config(tensor_split=shares)


def test_a_gpu_may_have_no_share() -> None:
    assert parse_config(tensor_split=[0, 1]).load.tensor_split == (0.0, 1.0)


@pytest.mark.parametrize("override", ["exps", "=CPU", "exps=", "="])
def test_an_override_names_tensors_and_a_buffer_type(override: str) -> None:
    with pytest.raises(ConfigError, match=f"^option: override_tensor '{override}' is not 'regex="):
        parse_config(override_tensor=[override])


def test_an_override_is_a_regular_expression() -> None:
    with pytest.raises(ConfigError, match=r"override_tensor '\(=CPU' holds no regular expression"):
        parse_config(models={"a": {"path": "a.gguf", "override_tensor": ["(=CPU"]}})


def test_a_pattern_may_hold_an_equals_sign() -> None:
    assert parse_config(override_tensor=["a=b=CPU"]).load.override_tensor == ("a=b=CPU",)


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


class Budget(msgspec.Struct, forbid_unknown_fields=True):
    """Options of a plugin."""

    tokens: int = 10


def test_a_plugin_reads_its_own_options() -> None:
    config = parse_config(plugin_options={"budget": {"tokens": 5}, "other": {"x": 1}})
    assert plugin_options(config, "budget", Budget).tokens == 5
    assert plugin_options(config, "third", Budget).tokens == 10


@pytest.mark.parametrize("wrong", [{"tokens": "many"}, {"coins": 1}])
def test_a_wrong_option_of_a_plugin_is_named_with_the_plugin(wrong: dict[str, object]) -> None:
    config = parse_config(plugin_options={"budget": wrong})
    with pytest.raises(ConfigError, match=r"plugin_options of 'budget': .*(tokens|coins)"):
        plugin_options(config, "budget", Budget)
