"""What the scheduler promises, each promise by itself, in random worlds where it is hard to keep.

Each world is made from bytes that hypothesis finds: who exists, what there is, and every move. At
the end the world behaves, everybody who waits must get an answer in time, and the router closes.
A failure shows the shortest run that was found, as a trace that ``llm-router-mw simulate
--events`` can replay.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.scheduler_checks import PROMISES
from tests.support.scheduler_mixes import (
    COMPANY,
    CROWDED,
    GROUPED,
    MIXES,
    REMOTE,
    ROOMY,
    SEVERAL,
    SHARED,
    SLEEPY,
    TIGHT,
    TROUBLED,
    USUAL,
)
from tests.support.scheduler_script import MOVE_BYTES, SETUP_BYTES, cut, play
from tests.support.scheduler_setup import Mix

MOVES = 300
WHERE: dict[str, Mix] = {
    "what is admitted fits": TIGHT,
    "the ledger agrees": SLEEPY,
    "memory taken by others is made up for": TIGHT,
    "what can be shed goes first": TIGHT,
    "a leased instance is never a victim": CROWDED,
    "ready is granted at once": SEVERAL,
    "nothing loads unwanted": CROWDED,
    "one that waits blocks no other": ROOMY,
    "who is first goes first": CROWDED,
    "no more are evicted than needed": TIGHT,
    "idle victims go before anything is degraded": ROOMY,
    "what never fits is refused at once": ROOMY,
    "nobody waits longer than allowed": SEVERAL,
    "what is resident is served first": CROWDED,
    "room is made where it can be": TIGHT,
    "failures cool down": TROUBLED,
    "steps go down the ladder": SLEEPY,
    "a crash ends leases and nothing else": TROUBLED,
    "pinned by one is pinned for all": SHARED,
    "groups add up": GROUPED,
    "who needs another goes with it": COMPANY,
    "idle limits are kept": SLEEPY,
    "nobody goes without a reason": SHARED,
    "an instance ends with its last model": SHARED,
    "the timer rings in time": USUAL,
    "a guess costs nobody anything": USUAL,
    "the queue has its limits": CROWDED,
    "nothing happens after the end": USUAL,
    "files are fetched for somebody and only if they may fit": REMOTE,
    "who waits for files gets them": REMOTE,
    "a download takes no memory": REMOTE,
}
"""The kind of world in which each promise is hardest to keep."""

scripts = st.binary(
    min_size=SETUP_BYTES + 50 * MOVE_BYTES, max_size=SETUP_BYTES + MOVES * MOVE_BYTES
).map(cut)
often = settings(
    max_examples=18,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_every_promise_is_tried() -> None:
    assert set(WHERE) == set(PROMISES)
    assert all(promise.says for promise in PROMISES.values())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(WHERE))
def test_promise(name: str) -> None:
    @often
    @given(scripts)
    def holds(script: tuple[bytes, ...]) -> None:
        play(script, WHERE[name], [PROMISES[name]])

    holds()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(MIXES))
@pytest.mark.parametrize("crowd", [False, True], ids=["alone", "in a crowd"])
def test_everybody_is_answered_in_time(name: str, crowd: bool) -> None:
    """From any state, once the world behaves; also while others always come back for more."""

    @often
    @given(scripts)
    def holds(script: tuple[bytes, ...]) -> None:
        play(script, MIXES[name], (), crowd=crowd)

    holds()
