"""Options of a router, checked as they come in: from keyword arguments, a dict or the CLI."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llm_router_mw.errors import ConfigError
from llm_router_mw.types import LoadOptions, LoraAdapter

StructT = TypeVar("StructT", bound=Struct)


class ModelEntry(Struct, frozen=True, kw_only=True):
    """A model that was named one by one, rather than found in a directory."""

    id: str
    path: str
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    options: LoadOptions = LoadOptions()


class RouterConfig(Struct, frozen=True, kw_only=True):
    """Everything that a router can be told. Sizes are bytes, times are seconds."""

    models_dir: str | None = None
    """Each ``*.gguf`` in it, and each sub-directory that holds one, is a model."""
    models: tuple[ModelEntry, ...] = ()
    load: LoadOptions = LoadOptions()
    """Load options of models that say nothing else."""
    models_max: int = 4
    """Instances that may be loading or loaded at once; 0 is no limit."""
    models_autoload: bool = True
    engine: str = "process"
    eviction_policy: str = "lru"
    spare_worker: bool = True
    """Keep one started worker at hand, so that a load does not wait for a process to start."""
    max_wait_seconds: float = 30.0
    """Other work that a queued request waits for at most before busy victims are drained."""
    max_queue: int = 512
    """Requests that may wait for a model to be loaded or to have room; 0 is no limit."""
    queue_timeout_seconds: float = 600.0
    """A request that could not be served for so long is refused."""
    max_lease_seconds: float = 3600.0
    client_stall_seconds: float = 60.0
    """A client that reads nothing for so long is cancelled."""
    load_stall_seconds: float = 300.0
    """A load that makes no progress for so long is given up."""
    stop_timeout_seconds: float = 10.0
    """A worker asked to stop is terminated after so long, and killed after as long again."""


_LIMITS: dict[str, tuple[float, float]] = {
    "models_max": (0, 10_000),
    "max_queue": (0, 1_000_000),
    "max_wait_seconds": (0, 1e9),
    "queue_timeout_seconds": (0.001, 1e9),
    "max_lease_seconds": (0.001, 1e9),
    "client_stall_seconds": (0.001, 1e9),
    "load_stall_seconds": (0.001, 1e9),
    "stop_timeout_seconds": (0.001, 1e9),
}
_LOAD_LIMITS: dict[str, tuple[float, float]] = {
    "n_ctx": (0, 2**31 - 1),
    "n_parallel": (1, 256),
    "n_batch": (1, 65_536),
    "n_threads": (0, 4096),
    "n_gpu_layers": (-1, 2**31 - 1),
}


def parse_config(options: Mapping[str, Any] = {}, /, **more: Any) -> RouterConfig:
    """Return the configuration that keyword-style *options* describe.

    Load options (``n_ctx=4096``) stand beside the router's own and are defaults for every model;
    ``models`` maps a name to a path, or to a dict of ``path``, ``aliases``, ``tags`` and load
    options that differ.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    given = {**options, **more}
    defaults = {name: given.pop(name) for name in LoadOptions.__struct_fields__ if name in given}
    unknown = set(given) - set(RouterConfig.__struct_fields__) | {"load"} & set(given)
    if unknown:
        known = sorted({*RouterConfig.__struct_fields__, *LoadOptions.__struct_fields__} - {"load"})
        raise ConfigError(
            f"unknown option {', '.join(sorted(map(repr, unknown)))}; known are {', '.join(known)}"
        )
    named = given.pop("models", {})
    if not isinstance(named, Mapping):
        raise ConfigError("models must map names to paths or to dicts with a 'path'")
    entries = tuple(_model_entry(name, value, defaults) for name, value in named.items())
    if "models_dir" in given:
        given["models_dir"] = _as_text(given["models_dir"])
    config = _convert(given, RouterConfig, "option")
    _check_limits(config, _LIMITS, "option")
    return msgspec.structs.replace(config, models=entries, load=_load_options(defaults))


def _model_entry(name: str, value: Any, defaults: dict[str, Any]) -> ModelEntry:
    if isinstance(value, (str, os.PathLike)):
        value = {"path": value}
    if not isinstance(value, Mapping) or "path" not in value:
        raise ConfigError(f"model {name!r} needs a path, or a dict with a 'path'")
    about = {"path", "aliases", "tags"}
    options = {**defaults, **{key: item for key, item in value.items() if key not in about}}
    described = {key: item for key, item in value.items() if key in about}
    described["path"] = _as_text(described["path"])
    entry = _convert({"id": name, **described}, ModelEntry, f"model {name!r}")
    return msgspec.structs.replace(entry, options=_load_options(options, f"model {name!r}"))


def _load_options(options: Mapping[str, Any], where: str = "option") -> LoadOptions:
    given = dict(options)
    if "lora" in given:
        given["lora"] = _lora_adapters(given["lora"], where)
    converted = _convert(given, LoadOptions, where)
    _check_limits(converted, _LOAD_LIMITS, where)
    for adapter in converted.lora:
        if not math.isfinite(adapter.scale):
            raise ConfigError(f"{where}: lora: the scale is {adapter.scale}; it must be finite")
    return converted


def _lora_adapters(given: Any, where: str) -> list[Any]:
    """Return adapters, each a path or a dict, as dicts with absolute paths."""
    if not isinstance(given, (list, tuple)):
        raise ConfigError(f"{where}: Expected a list of adapters - at `$.lora`")
    found = []
    for item in given:
        if isinstance(item, LoraAdapter):
            item = {"path": item.path, "scale": item.scale}
        about = dict(item) if isinstance(item, Mapping) else {"path": item}
        path = _as_text(about.get("path"))
        if not isinstance(path, str):
            raise ConfigError(f"{where}: Expected a path, or a dict with a 'path' - at `$.lora`")
        found.append(about | {"path": os.path.abspath(path)})
    return found


def _convert(value: dict[str, Any], kind: type[StructT], where: str) -> StructT:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def _as_text(path: Any) -> Any:
    """Return a path object as text; everything else is for the type check to judge."""
    return os.fspath(path) if isinstance(path, os.PathLike) else path


def _check_limits(struct: Struct, limits: Mapping[str, tuple[float, float]], where: str) -> None:
    for name, (low, high) in limits.items():
        value = getattr(struct, name)
        if not low <= value <= high:
            raise ConfigError(f"{where}: {name} is {value}; it must be from {low:g} to {high:g}")
