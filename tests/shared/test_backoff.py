"""Trying again, less and less often."""

from __future__ import annotations

import pytest

from llm_router_mw.shared.backoff import Backoff


def test_the_first_try_is_at_once_and_later_ones_wait_longer_up_to_a_bound() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(9)]
    assert waits == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


def test_what_lasted_begins_anew_and_what_did_not_goes_on() -> None:
    backoff = Backoff()
    backoff.next()
    backoff.lasted(9.0)
    assert backoff.next() == pytest.approx(0.1)
    backoff.lasted(10.0)
    assert backoff.next() == 0.0
