"""Figures of a simulation, and how they are shown."""

from __future__ import annotations

import pytest

from llm_router_mw.simulator.report import make_report, percentile, summary, table
from llm_router_mw.simulator.tally import Tally


def counted() -> Tally:
    tally = Tally(["a", "b"])
    tally.sent_at.extend([0.0, 1.0, 2.0])
    tally.sent_to.extend([0, 1, 0])
    tally.waits.extend([3.0, 1.0])
    tally.loads, tally.wakes = 4, 2
    tally.note_refusal(3, "QueueTimeoutError")
    tally.note_eviction(0, 10.0)
    tally.note_return(0, 69.9)
    tally.note_eviction(1, 10.0)
    tally.note_return(1, 70.0)
    return tally


def test_what_was_counted_becomes_figures() -> None:
    report = make_report(counted(), policy="lru", order="fair", bound=3, belady=4)

    assert (report.requests, report.models, report.loads, report.wakes) == (3, 2, 4, 2)
    assert (report.evictions, report.thrashes) == (2, 1)
    assert report.stalled_seconds == 4.0
    assert (report.wait_p50_seconds, report.wait_p99_seconds) == (1.0, 3.0)
    assert report.refused == {"QueueTimeoutError": 1}


def test_a_refused_request_is_for_no_model() -> None:
    assert list(counted().sent_to) == [0, 1, -1]


@pytest.mark.parametrize(("percent", "expected"), [(50, 2.0), (75, 3.0), (99, 4.0), (0, 1.0)])
def test_a_percentile_is_a_value_that_was_seen(percent: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == expected
    assert percentile([], percent) == 0.0


def test_the_summary_is_one_line_with_what_matters() -> None:
    report = make_report(counted(), policy="lru", order="fair", bound=3, belady=4)

    assert summary(report) == (
        "lru: 3 requests, 4 loads, 2 wake-ups, bound 3, stalled 4.0 s, p99 wait 3.00 s"
    )


def test_people_see_all_figures() -> None:
    tally = counted()
    tally.revoked, tally.unanswered = 1, 5

    shown = table(make_report(tally, policy="lru", order="fifo", bound=3, belady=4))

    for words in (
        "lru, strict order",
        "4 (bound 3, Belady 4)",
        "1 came back within 60 s",
        "1 LeaseExpiredError, 1 QueueTimeoutError",
        "never answered",
    ):
        assert words in shown


def test_nothing_refused_is_said_so() -> None:
    shown = table(make_report(Tally([]), policy="lru", order="fair", bound=0, belady=0))

    assert "none" in shown
    assert "never answered" not in shown
