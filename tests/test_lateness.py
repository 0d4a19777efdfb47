"""Waits that took their time, and waits that a blocked loop drew out."""

from __future__ import annotations

import pytest

from llm_router_mw.lateness import is_late


@pytest.mark.parametrize(
    ("waited", "tick", "late"),
    [
        (1.0, 1.0, False),
        (1.9, 1.0, False),
        (2.0, 1.0, True),
        (0.04, 0.001, False),  # as any loop may be
        (0.06, 0.001, True),
        (0.0, 0.0, False),
    ],
)
def test_a_wait_is_late_if_it_took_twice_its_time_or_long_beyond_it(
    waited: float, tick: float, late: bool
) -> None:
    assert is_late(waited, tick) is late
