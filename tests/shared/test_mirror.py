"""What a web process knows of models that live elsewhere."""

from __future__ import annotations

from msgspec.structs import replace

from llm_router_mw.shared.mirror import Mirror
from llm_router_mw.types import InstanceState, ModelView, RouterView
from tests.support.pretended_host import view

BEFORE = RouterView(models_max=1, models_autoload=True)
BUSY = RouterView(models_max=2, models_autoload=False, waiting=3)
LOADED = replace(view("b"), state=InstanceState.LOADED, leases=1, memory={"host": 5}, pinned=True)


def mirror(*views: ModelView) -> Mirror:
    made = Mirror(BEFORE)
    made.begin(views, BUSY)
    return made


def test_nothing_is_known_before_a_host_has_spoken() -> None:
    assert (Mirror(BEFORE).models, Mirror(BEFORE).overview) == ((), BEFORE)


def test_models_come_in_the_order_of_the_host() -> None:
    found = mirror(view("b"), view("a"))
    assert found.models == (view("b"), view("a"))
    assert found.overview == BUSY


def test_a_change_leaves_the_others_where_and_as_they_are() -> None:
    found = mirror(view("c"), view("b"), view("a"))
    found.change((LOADED,))
    assert found.models == (view("c"), LOADED, view("a"))
    assert found.overview == BUSY
    found.change((), BEFORE)
    assert found.overview == BEFORE


def test_what_was_read_stays_as_it_was() -> None:
    found = mirror(view("b"))
    before = found.models
    found.change((LOADED, view("new")))
    assert before == (view("b"),)
    assert found.models == (LOADED, view("new"))


def test_with_the_host_everything_loaded_is_lost() -> None:
    found = mirror(view("a"), LOADED)
    found.lose()
    assert found.models == (view("a"), replace(view("b"), pinned=True))
    assert found.overview == RouterView(models_max=2, models_autoload=False)


def test_the_next_host_says_all_anew() -> None:
    found = mirror(view("a"), LOADED)
    found.begin((view("c"),), BEFORE)
    assert (found.models, found.overview) == ((view("c"),), BEFORE)
