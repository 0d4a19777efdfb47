"""What is said about models and groups, as the scheduler hears it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.config import parse_config
from llm_router_mw.errors import ConfigError
from llm_router_mw.router.terms import preloads, terms_of
from llm_router_mw.scheduler.terms import Companion, Terms
from llm_router_mw.types import LoadOptions, Model, ModelSettings


def model(name: str, *, path: str = "", aliases: tuple[str, ...] = (), **said: Any) -> Model:
    return Model(
        id=name,
        path=path or f"/models/{name}.gguf",
        source="test",
        aliases=aliases,
        settings=ModelSettings(**said),
    )


def companion(of: Model) -> Companion:
    return Companion(of.id, of.instance_key)


A, B, C = model("a"), model("b"), model("c", aliases=("sea",))
ALL = (A, B, C)


def test_without_options_nothing_is_said() -> None:
    assert terms_of(ALL, parse_config()) == {"a": Terms(), "b": Terms(), "c": Terms()}


def test_the_routers_options_are_those_of_all_models() -> None:
    config = parse_config(
        sleep_idle_seconds=5, sleep_level="context", unload_idle_seconds=60, evict_to="full"
    )
    said = Terms(
        sleep_idle_seconds=5, sleep_level="context", unload_idle_seconds=60, evict_to="full"
    )
    assert terms_of([A], config) == {"a": said}


def test_what_a_model_says_itself_comes_first() -> None:
    own = model(
        "own",
        pinned=True,
        priority=7,
        sleep_idle_seconds=-1.0,
        sleep_level="full",
        unload_idle_seconds=9.0,
        evict_to="context",
    )
    config = parse_config(sleep_idle_seconds=5, sleep_level="context", evict_to="full")
    assert terms_of([own], config)["own"] == Terms(
        pinned=True,
        priority=7,
        sleep_idle_seconds=-1.0,
        sleep_level="full",
        unload_idle_seconds=9.0,
        evict_to="context",
    )


def test_a_model_is_in_all_the_exclusive_groups_that_name_it() -> None:
    config = parse_config(groups={"one": {"members": ["a", "b"]}, "two": {"members": ["a", "sea"]}})
    groups = {name: terms.exclusive_groups for name, terms in terms_of(ALL, config).items()}
    assert groups == {"a": ("one", "two"), "b": ("one",), "c": ("two",)}


def test_members_of_a_group_are_each_others_companions() -> None:
    config = parse_config(groups={"g": {"members": ["a", "sea"], "mode": "together"}})
    companions = {name: terms.companions for name, terms in terms_of(ALL, config).items()}
    assert companions == {"a": (companion(C),), "b": (), "c": (companion(A),)}


def test_who_is_together_with_a_companion_is_a_companion() -> None:
    config = parse_config(
        groups={
            "one": {"members": ["a", "b"], "mode": "together"},
            "two": {"members": ["b", "c"], "mode": "together"},
        }
    )
    terms = terms_of(ALL, config)
    assert terms["a"].companions == (companion(B), companion(C))
    assert terms["c"].companions == (companion(A), companion(B))


def test_a_model_of_the_same_instance_needs_no_company() -> None:
    twin = model("twin", path=A.path)
    config = parse_config(groups={"g": {"members": ["a", "twin"], "mode": "together"}})
    assert all(not terms.companions for terms in terms_of([A, twin], config).values())


def test_a_group_of_an_unknown_model_is_refused() -> None:
    config = parse_config(groups={"g": {"members": ["a", "other"]}})
    with pytest.raises(ConfigError, match=r"group 'g' names the model 'other'.* a, b, c, sea"):
        terms_of(ALL, config)


def test_companions_are_no_more_than_may_be_loaded() -> None:
    groups = {"g": {"members": ["a", "b", "c"], "mode": "together"}}
    with pytest.raises(ConfigError, match=r"takes 3 instances, but models_max is 2"):
        terms_of(ALL, parse_config(groups=groups, models_max=2))
    assert terms_of(ALL, parse_config(groups=groups, models_max=0))
    assert terms_of(ALL, parse_config(groups=groups, models_max=3))


def test_companions_cannot_exclude_each_other() -> None:
    groups = {
        "never": {"members": ["a", "b"]},
        "always": {"members": ["b", "a"], "mode": "together"},
    }
    with pytest.raises(ConfigError, match=r"'a' and 'b' must be together, but group 'never'"):
        terms_of(ALL, parse_config(groups=groups))


def test_names_of_one_instance_exclude_nobody() -> None:
    twin = model("twin", path=A.path)
    groups = {
        "never": {"members": ["a", "twin"]},
        "always": {"members": ["a", "twin"], "mode": "together"},
    }
    terms = terms_of([A, twin], parse_config(groups=groups))
    assert terms["a"].exclusive_groups == ("never",)


def test_other_load_options_make_another_instance() -> None:
    long = Model(id="long", path=A.path, source="test", options=LoadOptions(n_ctx=9))
    config = parse_config(groups={"g": {"members": ["a", "long"], "mode": "together"}})
    assert terms_of([A, long], config)["a"].companions == (companion(long),)


# Models that are loaded at the start


def test_listed_models_come_in_their_order_and_others_follow() -> None:
    eager = model("eager", preload=True)
    config = parse_config(preload=["sea", "a", "c"])
    assert preloads((eager, *ALL), config) == ("c", "a", "eager")


def test_a_model_that_says_no_is_not_loaded_at_the_start() -> None:
    assert preloads([model("a", preload=False), B], parse_config(preload=["a", "b"])) == ("b",)


def test_an_unknown_model_cannot_be_loaded_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"preload names the model 'a'.* known are none"):
        preloads([], parse_config(preload=["a"]))


def test_models_are_pinned_by_their_own_setting_or_by_the_routers() -> None:
    config = parse_config(pin=["sea"])
    terms = terms_of((model("own", pinned=True), *ALL), config)
    assert sorted(name for name, said in terms.items() if said.pinned) == ["c", "own"]


def test_a_pin_of_an_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="pin names the model 'x', which does not exist"):
        terms_of(ALL, parse_config(pin=["x"]))
