"""Runs of a random world: how one is played, cut down to what matters, and written down."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llm_router_mw.simulator.event_trace import Setup as TraceSetup
from llm_router_mw.simulator.event_trace import event_line, setup_line
from tests.support.scheduler_calm import finish, settle
from tests.support.scheduler_checks import PROMISES, Promise
from tests.support.scheduler_choices import Choices
from tests.support.scheduler_records import Violation
from tests.support.scheduler_setup import Mix, random_setup
from tests.support.scheduler_world import RandomWorld

SETUP_BYTES = 64
MOVE_BYTES = 10

Script = tuple[bytes, ...]
"""The bytes that make the world, then those of each move."""

ALL = tuple(PROMISES.values())


def cut(data: bytes) -> Script:
    """Return the script that *data* holds."""
    moves = range(SETUP_BYTES, len(data), MOVE_BYTES)
    return data[:SETUP_BYTES], *(data[at : at + MOVE_BYTES] for at in moves)


def random_script(rng: random.Random, moves: int) -> Script:
    return cut(rng.randbytes(SETUP_BYTES + moves * MOVE_BYTES))


def play(
    script: Script, mix: Mix, promises: Sequence[Promise] = ALL, *, crowd: bool = False
) -> RandomWorld:
    """Play *script* to the end, let the world settle, and close the router.

    Raises:
        Violation: a promise was broken; the trace of all events is in its notes.
    """
    world = RandomWorld(random_setup(Choices(script[0]), mix), mix, tuple(promises))
    try:
        for move in script[1:]:
            world.move(Choices(move))
        settle(world, crowd=crowd)
        finish(world)
    except Exception as error:
        error.add_note(written(world))
        raise
    return world


def shortest(
    script: Script, mix: Mix, promises: Sequence[Promise] = ALL, *, crowd: bool = False
) -> Script:
    """Return *script* without the moves that are not needed to break what it breaks."""
    wanted = _broken(script, mix, promises, crowd)
    assert wanted is not None, "the script breaks nothing"
    head, moves = script[0], list(script[1:])
    size = max(1, len(moves) // 2)
    while True:
        at = 0
        while at < len(moves):
            fewer = moves[:at] + moves[at + size :]
            if _broken((head, *fewer), mix, promises, crowd) == wanted:
                moves = fewer
            else:
                at += size
        if size == 1:
            return head, *moves
        size //= 2


def _broken(script: Script, mix: Mix, promises: Sequence[Promise], crowd: bool) -> str | None:
    try:
        play(script, mix, promises, crowd=crowd)
    except Violation as error:
        return error.promise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def written(world: RandomWorld) -> str:
    """Return what the scheduler was told, as lines for ``llm-router-mw simulate --events``."""
    head = setup_line(TraceSetup(limits=world.setup.limits))
    return "\n".join([head, *(event_line(at, event) for at, event in world.book.trace)])
