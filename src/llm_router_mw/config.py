"""Options of a router, checked as they come in: from keyword arguments, a dict or the CLI."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from llm_router_mw.errors import ConfigError
from llm_router_mw.hub_reference import parse_reference, reference_of
from llm_router_mw.types import LoadOptions, LoraAdapter, ModelSettings, SleepLevel, Step
from llm_router_mw.wrong_options import unknown_names, wrong_value

StructT = TypeVar("StructT", bound=Struct)


class ModelEntry(Struct, frozen=True, kw_only=True):
    """A model that was named one by one, rather than found in a directory."""

    id: str
    path: str
    """Of its file; ``hf://owner/name:QUANT`` stands for a model of the hub."""
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    options: LoadOptions = LoadOptions()
    settings: ModelSettings = ModelSettings()


class Group(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models that are resident one at a time, or all together."""

    members: tuple[str, ...]
    """Ids or aliases."""
    mode: Literal["exclusive", "together"] = "exclusive"


class RouterConfig(Struct, frozen=True, kw_only=True):
    """Everything that a router can be told. Sizes are bytes, times are seconds."""

    mode: Literal["local", "shared"] = "local"
    """Whose the router is: of this process, or of all web processes, in a host of its own."""
    shared_name: str = ""
    """In shared mode: who says the same shares one router; empty is the working directory."""
    shared_grace_seconds: float = 30.0
    """How long the host of a shared router stays after the last web process has gone."""
    models_dir: str | None = None
    """Each ``*.gguf`` in it, and each sub-directory that holds one, is a model."""
    models: tuple[ModelEntry, ...] = ()
    load: LoadOptions = LoadOptions()
    """Load options of models that say nothing else."""
    hf_token: str | None = None
    """Token for private and gated repositories of the hub; None is the variable ``HF_TOKEN``."""
    offline: bool = False
    """Never use the network: models of the hub must be in its cache."""
    models_max: int = 4
    """Instances that may be loading, loaded or waking at once; 0 is no limit."""
    workers_max: int = 0
    """Worker processes at once, those of sleeping instances included; 0 is no limit."""
    models_autoload: bool = True
    preload: tuple[str, ...] = ()
    """Models that are loaded when the router starts, in this order."""
    pin: tuple[str, ...] = ()
    """Models that are never evicted to make room for others, besides those that say so."""
    prefetch: bool = False
    """Load the model that will probably be asked for next, where that evicts nothing."""
    groups: dict[str, Group] = {}
    engine: str = "process"
    allow_plugins: tuple[str, ...] | None = None
    """Installed plugins that are used, by their name or their distribution's; None is all."""
    block_plugins: tuple[str, ...] = ()
    """Installed plugins that are not used."""
    plugin_options: dict[str, dict[str, Any]] = {}
    """Options of plugins, by the names that they document."""
    strict_plugins: bool = False
    """Refuse to start with an installed plugin that is broken, rather than leave it out."""
    eviction_policy: str = "lru"
    spare_worker: bool = True
    """Keep one started worker at hand, so that a load does not wait for a process to start."""
    max_wait_seconds: float = 30.0
    """Other work that a queued request waits for at most before busy victims are drained."""
    min_resident_seconds: float = 0.0
    """How long a loaded model stays at least, unless somebody has waited ``max_wait_seconds``."""
    max_queue: int = 512
    """Requests that may wait for a model to be loaded or to have room; 0 is no limit."""
    max_queue_per_model: int = 0
    """Requests that may wait for one instance; 0 is no limit."""
    queue_timeout_seconds: float = 600.0
    """A request that could not be served for so long is refused."""
    max_lease_seconds: float = 3600.0
    max_keep_alive_seconds: float = 86_400.0
    """The longest time for which a request may keep its model with ``keep_alive``."""
    sleep_idle_seconds: float = -1.0
    """A model that was idle for so long is put to sleep; -1 is never."""
    sleep_level: SleepLevel = "full"
    """What sleep frees: the context, or the weights too."""
    unload_idle_seconds: float = -1.0
    """A model that was idle for so long, asleep or not, is unloaded; -1 is never."""
    sleep_handler_timeout_seconds: float = 10.0
    """How long a sleep handler may take; the model goes to sleep, or ends, without it then."""
    kv_cache: bool = True
    """Save conversations when a context is freed, and go on from them when it is back."""
    cache_ram: int = 8192
    """MiB of memory that saved conversations may take; -1 is no limit, 0 is off.

    They never take room from models: it is theirs as soon as they need it.
    """
    kv_cache_dir: str | None = None
    """Directory in which conversations outlive the router; None keeps them in memory alone."""
    kv_cache_disk: int = 16384
    """MiB that conversations may take in ``kv_cache_dir``; -1 is no limit."""
    kv_cache_ttl_seconds: float = 86_400.0
    """A conversation that was not gone on with for so long is forgotten; -1 is never."""
    warm_weights: bool = False
    """Keep the files of sleeping models in the page cache, as far as memory is free."""
    evict_to: Step = "stop"
    """How far down a victim goes, as far as that frees enough."""
    models_memory_margin: int | dict[str, int] = 1024
    """MiB that stay free on each device; a dict says it for single ones. 0 is off."""
    memory_limit: dict[str, int] = {}
    """MiB that all models together may take of a device, by its name."""
    watch_memory_seconds: float = 5.0
    """How often free memory is looked at, so that models make way for other programs."""
    require_estimate: bool = False
    """Refuse a model of which nobody can say what it needs, rather than load it unchecked."""
    dry_runs: Literal["auto", "always", "never"] = "auto"
    """Of which models llama.cpp is asked what they need before they are loaded: of those whose
    architecture is not known, of all, or of none."""
    charge_mmap: bool = True
    """Count the pages of mapped files in full, though the system could drop them."""
    observations_dir: str | None = None
    """Where it is kept what loads were seen to take; None is the user's cache."""
    placement_policy: str = "auto"
    """Who says where a model may go."""
    prefer: Literal["gpu", "coexist"] = "gpu"
    """Evict idle models for a better place, or take a worse one beside them."""
    client_stall_seconds: float = 60.0
    """A client that reads nothing for so long is cancelled."""
    load_stall_seconds: float = 300.0
    """A load that makes no progress for so long is given up."""
    worker_stall_seconds: float = 120.0
    """A worker that has requests and gives no sign of life for so long is stuck, and ended."""
    stop_timeout_seconds: float = 10.0
    """A worker asked to stop is terminated after so long, and killed after as long again."""


_MAX_MIB = 2**40
_LIMITS: dict[str, tuple[float, float]] = {
    "shared_grace_seconds": (0, 1e9),
    "models_max": (0, 10_000),
    "workers_max": (0, 10_000),
    "max_queue": (0, 1_000_000),
    "max_queue_per_model": (0, 1_000_000),
    "max_wait_seconds": (0, 1e9),
    "min_resident_seconds": (0, 1e9),
    "queue_timeout_seconds": (0.001, 1e9),
    "max_lease_seconds": (0.001, 1e9),
    "max_keep_alive_seconds": (0, 1e9),
    "sleep_idle_seconds": (-1, 1e9),
    "unload_idle_seconds": (-1, 1e9),
    "sleep_handler_timeout_seconds": (0.001, 1e9),
    "cache_ram": (-1, _MAX_MIB),
    "kv_cache_disk": (-1, _MAX_MIB),
    "kv_cache_ttl_seconds": (-1, 1e9),
    "models_memory_margin": (0, _MAX_MIB),
    "client_stall_seconds": (0.001, 1e9),
    "load_stall_seconds": (0.001, 1e9),
    "watch_memory_seconds": (0.1, 1e9),
    "worker_stall_seconds": (0.001, 1e9),
    "stop_timeout_seconds": (0.001, 1e9),
}
_SETTINGS_LIMITS: dict[str, tuple[float, float]] = {
    "priority": (-100, 100),
    "sleep_idle_seconds": (-1, 1e9),
    "unload_idle_seconds": (-1, 1e9),
}
_LOAD_LIMITS: dict[str, tuple[float, float]] = {
    "n_ctx": (0, 2**31 - 1),
    "n_parallel": (1, 256),
    "n_batch": (1, 65_536),
    "n_ubatch": (0, 65_536),
    "n_threads": (0, 4096),
    "n_gpu_layers": (-1, 2**31 - 1),
    "main_gpu": (0, 1023),
    "min_gpu_layers": (0, 2**31 - 1),
    "fit_ctx": (1, 2**31 - 1),
    "n_cpu_moe": (0, 512),
}
_PLAIN_CACHE_TYPES = ("f32", "f16", "bf16")


def parse_config(options: Mapping[str, Any] = {}, /, **more: Any) -> RouterConfig:
    """Return the configuration that keyword-style *options* describe.

    Load options (``n_ctx=4096``) stand beside the router's own and are defaults for every model;
    ``models`` maps a name to a path, or to a dict of ``path`` (or ``hf_repo`` and perhaps
    ``hf_file``), ``aliases``, ``tags``, settings (fields of ``ModelSettings``) and load options
    that differ.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    given = {**options, **more}
    defaults = {name: given.pop(name) for name in LoadOptions.__struct_fields__ if name in given}
    unknown = set(given) - set(RouterConfig.__struct_fields__) | {"load"} & set(given)
    if unknown:
        known = {*RouterConfig.__struct_fields__, *LoadOptions.__struct_fields__} - {"load"}
        raise ConfigError(unknown_names("option", unknown, known))
    named = given.pop("models", {})
    if not isinstance(named, Mapping):
        raise ConfigError("models must map names to paths or to dicts with a 'path'")
    entries = tuple(_model_entry(name, value, defaults) for name, value in named.items())
    for name in ("models_dir", "observations_dir", "kv_cache_dir"):
        if name in given:
            given[name] = _as_text(given[name])
    config = _convert(given, RouterConfig, "option")
    _check_limits(config, _LIMITS, "option")
    _check_idle_times(config, "option")
    _check_devices(config)
    if not config.shared_name.isprintable():
        raise ConfigError(
            f"option: shared_name is {config.shared_name!r}; it must be one line of text"
        )
    return msgspec.structs.replace(config, models=entries, load=_load_options(defaults))


def plugin_options(config: RouterConfig, plugin: str, kind: type[StructT]) -> StructT:
    """Return what *config* says to *plugin*, checked: for plugins that have options.

    Raises:
        ConfigError: an option is unknown (where *kind* forbids that) or of the wrong type.
    """
    said: dict[str, Any] = {}
    if plugin in config.plugin_options:
        said = config.plugin_options[plugin]  # by index: whoever reads it so is known to read it
    return _convert(said, kind, f"plugin_options of {plugin!r}")


def _model_entry(name: str, value: Any, defaults: dict[str, Any]) -> ModelEntry:
    if isinstance(value, (str, os.PathLike)):
        value = {"path": value}
    if not isinstance(value, Mapping) or not {"path", "hf_repo"} & set(value):
        raise ConfigError(f"model {name!r} needs a path, or a dict with a 'path' or an 'hf_repo'")
    where = f"model {name!r}"
    value = _located(value, where)
    about = {"path", "aliases", "tags"}
    said = set(ModelSettings.__struct_fields__)
    options = {**defaults, **_without(value, about | said)}
    described = _without(value, set(value) - about)
    described["path"] = _as_text(described["path"])
    entry = _convert({"id": name, **described}, ModelEntry, where)
    settings = _convert(_without(value, set(value) - said), ModelSettings, where)
    _check_limits(settings, _SETTINGS_LIMITS, where)
    _check_idle_times(settings, where)
    return msgspec.structs.replace(entry, options=_load_options(options, where), settings=settings)


def _located(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what is said of a model, with a path in place of a repository."""
    given = dict(value)
    repo, file = given.pop("hf_repo", None), given.pop("hf_file", None)
    try:
        if repo is not None:
            if "path" in given:
                raise ConfigError("it has a path and an hf_repo; give one of them")
            if not isinstance(repo, str) or not isinstance(file, str | None):
                raise ConfigError("hf_repo and hf_file must be text")
            given["path"] = parse_reference(repo, file).path
        elif file is not None:
            raise ConfigError("it has an hf_file and no hf_repo; name the repository, too")
        elif isinstance(given.get("path"), str):
            reference_of(given["path"])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}") from error
    return given


def _without(given: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def _load_options(options: Mapping[str, Any], where: str = "option") -> LoadOptions:
    given = dict(options)
    if "lora" in given:
        given["lora"] = _lora_adapters(given["lora"], where)
    converted = _convert(given, LoadOptions, where)
    _check_limits(converted, _LOAD_LIMITS, where)
    for adapter in converted.lora:
        if not math.isfinite(adapter.scale):
            raise ConfigError(f"{where}: lora: the scale is {adapter.scale}; it must be finite")
    _check_placement(converted, where)
    return converted


def _check_placement(options: LoadOptions, where: str) -> None:
    if options.type_v not in _PLAIN_CACHE_TYPES and options.flash_attn == "off":
        raise ConfigError(
            f"{where}: type_v is {options.type_v!r}, and a quantised cache of values needs flash "
            "attention; set flash_attn to 'on' or type_v to 'f16'"
        )
    shares = options.tensor_split
    usable = all(math.isfinite(share) and share >= 0 for share in shares)
    if not usable or (shares and not any(shares)):
        raise ConfigError(
            f"{where}: tensor_split is {list(shares)}; it must be finite shares of 0 or more, one "
            "of them above 0"
        )
    for override in options.override_tensor:
        pattern, equals, buffer = override.rpartition("=")
        if not equals or not pattern or not buffer:
            raise ConfigError(
                f"{where}: override_tensor {override!r} is not 'regex=buffer type', as 'exps=CPU'"
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"{where}: override_tensor {override!r} holds no regular expression: {error}"
            ) from error


def _lora_adapters(given: Any, where: str) -> list[Any]:
    """Return adapters, each a path or a dict, as dicts with absolute paths."""
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"{where}: lora: expected a list of adapters")
    found = []
    for item in given:
        if isinstance(item, LoraAdapter):
            item = {"path": item.path, "scale": item.scale}
        about = dict(item) if isinstance(item, Mapping) else {"path": item}
        path = _as_text(about.get("path"))
        if not isinstance(path, str):
            raise ConfigError(f"{where}: lora: expected a path, or a dict with a 'path'")
        found.append(about | {"path": os.path.abspath(path)})
    return found


def _convert(value: dict[str, Any], kind: type[StructT], where: str) -> StructT:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {wrong_value(str(error), kind)}") from error


def _as_text(path: Any) -> Any:
    """Return a path object as text; everything else is for the type check to judge."""
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def _check_limits(struct: Struct, limits: Mapping[str, tuple[float, float]], where: str) -> None:
    for name, (low, high) in limits.items():
        value = getattr(struct, name)
        # Absent, or said for each device by itself: see _check_devices.
        if value is None or isinstance(value, dict):
            continue
        if not low <= value <= high:
            raise ConfigError(f"{where}: {name} is {value}; it must be from {low:g} to {high:g}")


def _check_devices(config: RouterConfig) -> None:
    for name in ("models_memory_margin", "memory_limit"):
        value = getattr(config, name)
        for device, mib in value.items() if isinstance(value, dict) else ():
            if not 0 <= mib <= _MAX_MIB:
                raise ConfigError(
                    f"option: {name} of {device!r} is {mib}; it must be from 0 to {_MAX_MIB} MiB"
                )


def _check_idle_times(struct: RouterConfig | ModelSettings, where: str) -> None:
    for name in ("sleep_idle_seconds", "unload_idle_seconds"):
        value = getattr(struct, name)
        if value is not None and -1 < value <= 0:
            raise ConfigError(f"{where}: {name} is {value}; it must be above 0, or -1 for never")
