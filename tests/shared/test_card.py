"""Hosts are found by their cards, which are valid as long as they live."""

from __future__ import annotations

import os
import socket

import pytest

from llm_router_mw.config import parse_config
from llm_router_mw.runtime_directory import put_locked
from llm_router_mw.shared.address import Address, address_of, meeting_place
from llm_router_mw.shared.card import Card, cards, shown
from llm_router_mw.shared.plan import Plan, plan_for

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
def plan() -> Plan:
    return plan_for(parse_config(shared_name="ours"))


@pytest.fixture
def address(plan: Plan) -> Address:
    return address_of(plan.name, plan.folder)


def test_where_nobody_has_ever_been_nobody_is() -> None:
    assert cards() == []


def test_a_host_is_seen_as_long_as_it_shows_itself(plan: Plan, address: Address) -> None:
    with shown(plan, address):
        [card] = cards()
        assert card == Card(pid=os.getpid(), name="ours", folder=os.getcwd(), address=address)
        assert card.title == "ours"
        assert card.is_valid
    assert cards() == []
    assert not card.is_valid


def test_without_a_name_its_folder_is_its_title(address: Address) -> None:
    assert Card(pid=1, name="", folder="/srv/app", address=address).title == "/srv/app"


def test_what_the_dead_have_left_is_removed_by_the_next(plan: Plan, address: Address) -> None:
    os.close(put_locked(address.card_of(77), b"{}"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address.socket_of(77)))
    with shown(plan, address):
        assert [card.pid for card in cards()] == [os.getpid()]
        assert list(meeting_place().iterdir()) == [address.card_of(os.getpid())]


def test_a_card_of_another_version_is_passed_over(address: Address) -> None:
    descriptor = put_locked(address.card_of(77), b'{"other": 1}')
    assert cards() == []
    assert address.card_of(77).exists()
    os.close(descriptor)


def test_a_card_that_is_gone_meanwhile_is_none(
    plan: Plan, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(meeting_place()), "glob", lambda self, pattern: [self / "gone.host"])
    assert cards() == []
