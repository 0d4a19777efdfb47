"""What a shared router is to be made of, as data that can be handed to another process."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable

import msgspec
from msgspec import Struct, structs

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError
from llm_router_mw.hub_reference import reference_of
from llm_router_mw.runtime_directory import can_lock

_USUAL = RouterConfig()
_RELEVANT = frozenset({"LLAMA_CACHE", "MODEL_ENDPOINT", "XDG_CACHE_HOME"})
_OF_DOORS = frozenset({"LLM_ROUTER_ADMIN_KEY"})
_RELEVANT_PREFIXES = (
    "LLM_ROUTER_",
    "LLAMA_ARG_",
    "CUDA_",
    "GGML_",
    "HF_",
    "HIP_",
    "ROCR_",
)

_encoder = msgspec.msgpack.Encoder(order="sorted")


class Plan(Struct, frozen=True, kw_only=True):
    """A router that several processes share, and how they find it. Made by :func:`plan_for`."""

    config: RouterConfig
    """Of a router in the host's own process, all paths absolute."""
    plugins: tuple[str, ...] = ()
    """Modules, by their dotted names."""
    folder: str
    """The working directory."""
    environ: dict[str, str] = {}
    """The variables that a router heeds."""
    name: str = ""
    """Whoever has the same one shares the router; empty is whoever has the same folder."""
    grace_seconds: float = _USUAL.shared_grace_seconds
    """How long the host stays when nobody is connected."""

    @property
    def fingerprint(self) -> str:
        """The same for plans that make the same router, also if they were made elsewhere."""
        made_of = (self.config, self.plugins, self.environ)
        return hashlib.sha256(_encoder.encode(made_of)).hexdigest()

    @property
    def title(self) -> str:
        """What to call its host in lists and logs."""
        return self.name or self.folder


def plan_for(config: RouterConfig, plugins: Iterable[object] = ()) -> Plan:
    """Return the plan for what *config* describes, as seen from this process.

    Raises:
        ConfigError: this system, or what was given, cannot be shared between processes.
    """
    if not can_lock() or not hasattr(socket, "AF_UNIX") or not hasattr(os, "fork"):
        raise ConfigError(
            "mode is 'shared', and this system has no Unix sockets and file locks; leave mode at "
            "'local', and run one web process"
        )
    plan = Plan(
        config=structs.replace(
            _located(config),
            mode=_USUAL.mode,
            shared_name=_USUAL.shared_name,
            shared_grace_seconds=_USUAL.shared_grace_seconds,
        ),
        plugins=_names_of(plugins),
        folder=os.getcwd(),
        environ={name: value for name, value in os.environ.items() if is_relevant(name)},
        name=config.shared_name,
        grace_seconds=config.shared_grace_seconds,
    )
    try:
        _encoder.encode(plan)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"mode is 'shared', and plugin_options hold what no other process can be given: "
            f"{error}; give text, numbers, lists and dicts"
        ) from error
    return plan


def is_relevant(variable: str) -> bool:
    """Whether a router heeds *variable* of the environment."""
    if variable in _OF_DOORS:
        return False
    return variable in _RELEVANT or variable.startswith(_RELEVANT_PREFIXES)


def _located(config: RouterConfig) -> RouterConfig:
    """Return *config* with all paths absolute: who shares a name may work in another directory."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else os.path.abspath(path)

    return structs.replace(
        config,
        models_dir=absolute(config.models_dir),
        kv_cache_dir=absolute(config.kv_cache_dir),
        observations_dir=absolute(config.observations_dir),
        models=tuple(
            entry if reference_of(entry.path) else structs.replace(entry, path=absolute(entry.path))
            for entry in config.models
        ),
    )


def _names_of(plugins: Iterable[object]) -> tuple[str, ...]:
    names: list[str] = []
    # A lone string is iterable too, and would be one plugin per character.
    for plugin in (plugins,) if isinstance(plugins, str) else plugins:
        if not isinstance(plugin, str):
            raise ConfigError(
                f"mode is 'shared', and the plugin {plugin!r} is an object of this process; give "
                "the dotted name of a module that the host can import"
            )
        names.append(plugin)
    return tuple(names)
