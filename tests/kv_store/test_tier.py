"""The index of a place: what fits, what has to go, and what holds what."""

from __future__ import annotations

import pytest

from llm_router_mw.kv_store.tier import UNLIMITED, Entry, Tier
from tests.support.fake_handle import sequence
from tests.support.snapshots import blocks, snapshot


def tier(*entries: Entry, limit: int = 1000, room: int = UNLIMITED) -> Tier:
    made = Tier("ram", limit, lambda: room)
    for entry in entries:
        made.add(entry)
    return made


def entry(name: str, used_at: float, size: int = 300, *numbers: int, **fields: object) -> Entry:
    return Entry(
        snapshot(name, size_bytes=size, blocks=blocks(*(numbers or (ord(name),))), **fields),
        used_at,
    )


def paths(entries: list[Entry] | None) -> list[str]:
    assert entries is not None
    return [each.path for each in entries]


def test_what_fits_costs_nothing() -> None:
    assert tier(entry("a", 1.0)).victims(700, used_at=5.0) == []


def test_the_longest_unused_goes_first_and_no_more_than_has_to() -> None:
    full = tier(entry("a", 2.0), entry("b", 1.0), entry("c", 3.0))
    assert paths(full.victims(300, used_at=5.0)) == ["b"]
    assert paths(full.victims(500, used_at=5.0)) == ["b", "a"]


def test_what_was_used_later_is_not_given_up_for_what_was_used_earlier() -> None:
    full = tier(entry("a", 2.0), entry("b", 1.0), entry("c", 3.0))
    assert paths(full.victims(700, used_at=2.0)) == ["b", "a"]
    assert full.victims(700, used_at=1.5) is None


def test_what_is_needless_anyway_goes_first() -> None:
    late = entry("c", 3.0)
    full = tier(entry("a", 2.0), entry("b", 1.0), late)
    assert paths(full.victims(300, used_at=2.5, first=[late])) == ["c"]


def test_what_is_larger_than_the_budget_never_fits() -> None:
    assert tier(entry("a", 1.0)).victims(1001, used_at=5.0) is None


def test_it_grows_by_no_more_than_there_is_room() -> None:
    small = tier(entry("a", 1.0), room=100)
    assert small.left_bytes == 100
    assert small.victims(100, used_at=5.0) == []
    assert paths(small.victims(350, used_at=5.0)) == ["a"]
    assert small.victims(500, used_at=5.0) is None


def test_a_reservation_counts_until_it_is_kept_or_given_back() -> None:
    made = tier(entry("a", 1.0))
    made.reserve("b", 600)
    assert (made.used_bytes, made.left_bytes) == (900, 100)
    made.release("b")
    assert made.used_bytes == 300
    made.reserve("c", 600)
    made.add(entry("c", 2.0, 500))
    assert made.used_bytes == 800


def test_without_a_limit_the_room_counts() -> None:
    assert tier(limit=UNLIMITED, room=77).left_bytes == 77


def test_a_snapshot_holds_all_that_it_begins_with_for_the_same_users_of_the_same_model() -> None:
    long = entry("long", 1.0, 300, 1, 2, 3)
    made = tier(long)
    identity = long.snapshot.identity
    assert made.covering(identity, sequence(0, 1, 2)) is long
    assert made.covering(identity, sequence(0, 1, 2, 3)) is long
    assert made.covering(identity, sequence(0, 1, 2, 3, 4)) is None
    assert made.covering(identity, sequence(0, 1, 9)) is None
    assert made.covering(identity, sequence(0, 1, 2, key="somebody else")) is None
    assert made.covering("model B", sequence(0, 1, 2)) is None


def test_the_beginnings_of_a_longer_one_are_needless() -> None:
    short, other = entry("short", 1.0, 300, 1), entry("other", 1.0, 300, 9)
    foreign = entry("foreign", 1.0, 300, 1, key="somebody else")
    made = tier(short, other, foreign)
    identity = short.snapshot.identity
    assert made.covered_by(identity, sequence(0, 1, 2)) == [short]
    long = snapshot("long", blocks=blocks(1, 2))
    made.add(Entry(long, 2.0))
    assert made.covered_by(identity, long) == [short]


def test_the_oldest_are_returned_up_to_a_size() -> None:
    made = tier(entry("a", 2.0), entry("b", 1.0), entry("c", 3.0))
    assert paths(made.oldest(301)) == ["b", "a"]
    assert paths(made.oldest(5000)) == ["b", "a", "c"]
    assert made.oldest(0) == []


def test_what_was_not_used_for_long_is_told() -> None:
    assert paths(tier(entry("a", 2.0), entry("b", 1.0)).expired(before=2.0)) == ["b"]


@pytest.mark.parametrize("path", ["a", "unknown"])
def test_removing_is_harmless(path: str) -> None:
    made = tier(entry("a", 1.0))
    gone = made.remove(path)
    assert (gone is None) == (path == "unknown")
    assert made.get(path) is None
    assert made.remove(path) is None
