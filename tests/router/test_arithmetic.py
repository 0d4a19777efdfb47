"""What the log says of memory."""

from __future__ import annotations

from llm_router_mw.router.arithmetic import in_words
from llm_router_mw.units import MIB


def test_a_load_tells_its_sums_device_by_device() -> None:
    sums = {
        "needed_bytes": 4 * MIB,
        "left_bytes": 10 * MIB,
        "others_bytes": 2 * MIB,
        "margin_bytes": MIB,
    }
    assert in_words({"memory": {"cuda:0": sums, "host": sums}}) == (
        " (cuda:0: needs 4 MiB, leaves 10 MiB beside 2 MiB of others and a margin of 1 MiB; "
        "host: needs 4 MiB, leaves 10 MiB beside 2 MiB of others and a margin of 1 MiB)"
    )


def test_an_eviction_tells_what_it_frees() -> None:
    assert in_words({"freed": {"host": 7 * MIB}, "for": ["a"]}) == " (host: frees 7 MiB)"


def test_other_events_tell_nothing() -> None:
    assert in_words({}) == in_words({"request": 3}) == ""
