"""What options say about each model, in the scheduler's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError
from llm_router_mw.scheduler.terms import Companion, Terms
from llm_router_mw.types import Model, ModelSettings


def terms_of(models: Iterable[Model], config: RouterConfig) -> dict[str, Terms]:
    """Return the terms of each of the *models* by its id, groups resolved.

    Raises:
        ConfigError: a group or ``pin`` names an unknown model, or a group asks for what cannot be.
    """
    known = tuple(models)
    by_name = _by_name(known)
    exclusive: dict[str, list[str]] = {model.id: [] for model in known}
    together: dict[str, set[str]] = {model.id: {model.id} for model in known}
    for name, group in config.groups.items():
        members = {_find(by_name, member, f"group {name!r}").id for member in group.members}
        if group.mode == "exclusive":
            for member in members:
                exclusive[member].append(name)
        else:
            _join(together, members)
    pinned = {_find(by_name, name, "pin").id for name in config.pin}
    by_id = {model.id: model for model in known}
    for partners in together.values():
        _check_partners([by_id[partner] for partner in sorted(partners)], exclusive, config)
    return {
        model.id: _terms(
            model.settings,
            config,
            model.settings.pinned or model.id in pinned,
            tuple(exclusive[model.id]),
            _companions(model, [by_id[partner] for partner in sorted(together[model.id])]),
        )
        for model in known
    }


def preloads(models: Iterable[Model], config: RouterConfig) -> tuple[str, ...]:
    """Return the ids of the models to load at the start: the option's in its order, then others.

    Raises:
        ConfigError: ``preload`` names an unknown model.
    """
    known = tuple(models)
    by_name = _by_name(known)
    listed = [_find(by_name, name, "preload") for name in config.preload]
    wanted = [model for model in listed if model.settings.preload is not False]
    wanted += [model for model in known if model.settings.preload]
    return tuple(dict.fromkeys(model.id for model in wanted))


def keeps_states(models: Iterable[Model], config: RouterConfig) -> bool:
    """Whether conversations of the instance that all *models* use are saved: one may say no."""
    said = [each.settings.kv_cache for each in models]
    return all(config.kv_cache if each is None else each for each in said)


def _terms(
    said: ModelSettings,
    config: RouterConfig,
    pinned: bool,
    exclusive_groups: tuple[str, ...],
    companions: tuple[Companion, ...],
) -> Terms:
    sleep = said.sleep_idle_seconds
    unload = said.unload_idle_seconds
    return Terms(
        priority=said.priority,
        pinned=pinned,
        sleep_idle_seconds=config.sleep_idle_seconds if sleep is None else sleep,
        sleep_level=said.sleep_level or config.sleep_level,
        unload_idle_seconds=config.unload_idle_seconds if unload is None else unload,
        evict_to=said.evict_to or config.evict_to,
        exclusive_groups=exclusive_groups,
        companions=companions,
    )


def _by_name(models: Iterable[Model]) -> dict[str, Model]:
    by_name = {alias: model for model in models for alias in model.aliases}
    return by_name | {model.id: model for model in models}


def _find(by_name: Mapping[str, Model], name: str, where: str) -> Model:
    model = by_name.get(name)
    if model is None:
        raise ConfigError(
            f"{where} names the model {name!r}, which does not exist; known are "
            f"{', '.join(sorted(by_name)) or 'none'}"
        )
    return model


def _join(together: dict[str, set[str]], members: set[str]) -> None:
    """Let *members* share one set, with all that are together with one of them already."""
    union = set().union(*(together[member] for member in members))
    for member in union:
        together[member] = union


def _companions(model: Model, partners: Iterable[Model]) -> tuple[Companion, ...]:
    """Return the *partners* that do not come with *model*'s own instance anyway."""
    own = model.instance_key
    return tuple(
        Companion(partner.id, partner.instance_key)
        for partner in partners
        if partner.instance_key != own
    )


def _check_partners(
    partners: list[Model], exclusive: Mapping[str, list[str]], config: RouterConfig
) -> None:
    """Check that the *partners* can be resident together."""
    names = ", ".join(repr(partner.id) for partner in partners)
    instances = len({partner.instance_key for partner in partners})
    if 0 < config.models_max < instances:
        raise ConfigError(
            f"groups: {names} must be together, which takes {instances} instances, but models_max "
            f"is {config.models_max}; raise it or make the group smaller"
        )
    members: dict[str, Model] = {}
    for partner in partners:
        for group in exclusive[partner.id]:
            other = members.setdefault(group, partner)
            if other.instance_key != partner.instance_key:
                raise ConfigError(
                    f"groups: {other.id!r} and {partner.id!r} must be together, but group "
                    f"{group!r} allows only one of them at a time; take one out of it"
                )
