"""All hosts of this user: who they are, what they do, and how to end one."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import anyio
from msgspec import Struct

from llm_router_mw.shared.call import Call, call
from llm_router_mw.shared.card import Card, cards
from llm_router_mw.shared.messages import Inspect, Status

_ANSWER_SECONDS = 5.0
_LOOK_SECONDS = 0.05


class FoundHost(Struct, frozen=True, kw_only=True):
    """A host that lives."""

    card: Card
    pid: int | None = None
    """As the kernel says; None if it does not listen, or lives in another container."""
    status: Status | None = None
    """None if it does not answer: it starts, ends or hangs."""


async def find_hosts() -> list[FoundHost]:
    """Return all hosts of this user.

    Raises:
        ConfigError: there is no place where hosts could be.
        RouterNotRunningError: what listens there is another user's.
    """
    return [await _found(card) for card in cards()]


async def _found(card: Card) -> FoundHost:
    for path in (card.address.socket_of(card.pid), card.address.socket):
        if (made := await call(path)) is None:
            continue
        status = await _status(made)
        if card.pid in (made.pid, status and status.pid):  # else another has taken its place
            return FoundHost(card=card, pid=made.pid, status=status)
    return FoundHost(card=card)


async def _status(made: Call) -> Status | None:
    try:
        with anyio.move_on_after(_ANSWER_SECONDS):
            answer = await made.ask(Inspect())
            return answer if isinstance(answer, Status) else None
    finally:
        await made.hang_up()
    return None


async def end_host(card: Card, pid: int, patience_seconds: float, *, force: bool = False) -> bool:
    """Have the host end politely, or with *force* at once; returns whether it has ended in time."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL if force else signal.SIGTERM)
    with anyio.move_on_after(patience_seconds):
        while card.is_valid:  # noqa: ASYNC110  # the kernel tells only parents
            await anyio.sleep(_LOOK_SECONDS)
    return not card.is_valid
