"""Whole characters only, and nothing of a stop string."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router_mw.engine.text import TextStream


def feed(pieces: list[bytes], stops: tuple[str, ...] = ()) -> list[str]:
    """Return what each piece releases, and the rest."""
    stream = TextStream(stops)
    return [*(stream.feed(piece) for piece in pieces), stream.finish()]


def test_text_without_stops_comes_at_once() -> None:
    assert feed([b"one", b" two"]) == ["one", " two", ""]


def test_half_a_character_waits_for_the_other_half() -> None:
    assert feed([b"a\xe2", b"\x82", b"\xacb"]) == ["a", "", "€b", ""]


def test_half_a_character_at_the_end_is_replaced() -> None:
    assert feed([b"a\xe2\x82"]) == ["a", "\ufffd"]


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    assert feed([b"a\xffb"]) == ["a\ufffdb", ""]


def test_only_what_may_become_a_stop_is_held_back() -> None:
    assert feed([b"so END", b"ING", b" EN", b"D OF"], ("END OF",)) == ["so ", "ENDING", " ", "", ""]


def test_what_was_held_back_comes_with_the_end() -> None:
    assert feed([b"a EN"], ("END",)) == ["a ", "EN"]


def test_the_first_of_several_stops_counts() -> None:
    assert feed([b"a; b. c"], (".", ";")) == ["a", ""]


def test_after_a_stop_nothing_more_comes() -> None:
    stream = TextStream(("!",))
    assert stream.feed(b"a!b") == "a"
    assert stream.stopped
    assert stream.feed(b"c") == ""
    assert stream.finish() == ""


def test_an_empty_stop_is_no_stop() -> None:
    assert feed([b"abc"], ("",)) == ["abc", ""]


def test_a_stop_of_several_bytes_a_character() -> None:
    assert feed([b"1\xe2", b"\x82\xac2"], ("€",)) == ["1", "", ""]


@pytest.mark.parametrize("stop", ["aab", "aba"])
def test_a_stop_that_overlaps_itself(stop: str) -> None:
    assert "".join(feed([b"a", b"a", b"a", b"b", b"a"], (stop,))) == "aaaba".partition(stop)[0]


@given(
    text=st.text(alphabet="ab€", max_size=30),
    stops=st.lists(st.text(alphabet="ab€", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 90), max_size=10),
)
def test_any_cutting_gives_the_text_before_the_first_stop(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    data = text.encode()
    borders = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(borders)]
    # Of stops that overlap, the one that is complete first wins, wherever it begins.
    ends = [text.find(stop) for stop in stops if stop in text]
    shown = "".join(feed(pieces, tuple(stops)))
    assert text.startswith(shown)
    if not ends:
        assert shown == text
    else:
        assert not any(stop in shown for stop in stops)
        assert shown in {text[:end] for end in ends}
