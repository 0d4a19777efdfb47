"""How a web process comes by its host: greet whoever is at the address, or start one there.

Whoever finds no host, or another one, takes the address' lock, so that of many who come at once
one starts a host and the others find it. A host that makes another router is asked to leave; one
that says nothing at all is ended.
"""

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack
from typing import NamedTuple

import anyio
import anyio.to_thread
from anyio.abc import SocketStream

from llm_router_mw import __version__, wire
from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.router import Router
from llm_router_mw.shared.address import Address, address_of
from llm_router_mw.shared.call import call
from llm_router_mw.shared.launch import START_SECONDS, launch
from llm_router_mw.shared.lock import locked
from llm_router_mw.shared.messages import PROTOCOL, GivenUp, GiveUp, Greet, Other, ToWeb, Welcome
from llm_router_mw.shared.peer import end_process
from llm_router_mw.shared.plan import Plan

logger = logging.getLogger("llm_router_mw.shared")

HOST_STALL_SECONDS = 60.0
"""A host that says nothing at all for so long hangs."""
_ANSWER_SECONDS = 10.0
"""How long to wait for an answer before the host is looked at more closely."""
_LOCK_SECONDS = START_SECONDS + 2 * HOST_STALL_SECONDS + _ANSWER_SECONDS
"""How long another process may take to start a host or to replace one."""


class Meeting(NamedTuple):
    """A connection to the host that has bidden this process welcome."""

    stream: SocketStream
    decoder: wire.Decoder[ToWeb]
    """May hold frames already: feed it nothing first."""
    welcome: Welcome
    host_pid: int | None
    """None if it is not known here, as of a host in another container."""


class _Silence(NamedTuple):
    """Somebody listens and does not answer."""

    pid: int | None


_Found = Meeting | Other | _Silence | None
"""None is nobody, or nobody who could be talked with."""


async def meet(plan: Plan) -> Meeting:
    """Return a connection to the host of *plan*'s router, which is started if there is none.

    Raises:
        ConfigError: the router cannot be made like this, or processes cannot meet here.
        PluginError: a plugin is at fault.
        RouterNotRunningError: the host did not start, or cannot be reached.
    """
    address = address_of(plan.name, plan.folder)
    found = await _greet(address, plan, _ANSWER_SECONDS)
    if isinstance(found, Meeting):
        return found
    async with locked(address, _LOCK_SECONDS) as lock:
        # Somebody may have been quicker.
        found = await _greet(address, plan, HOST_STALL_SECONDS)
        if isinstance(found, Meeting):
            return found
        if isinstance(found, Other):
            # A host that could not start would leave nobody in the place of the one that works.
            await anyio.to_thread.run_sync(_check, plan)
            await _retire(address, plan, found)
        elif isinstance(found, _Silence):
            _end(found)
        address.socket.unlink(missing_ok=True)
        await launch(plan, address, lock)
        found = await _greet(address, plan, HOST_STALL_SECONDS)
    if isinstance(found, Meeting):
        return found
    raise RouterNotRunningError(
        f"the shared router was started and cannot be reached; see its log, {str(address.log)!r}"
    )


async def _greet(address: Address, plan: Plan, seconds: float) -> _Found:
    """Return what is at *address*, once it has answered or *seconds* have passed."""
    async with AsyncExitStack() as stack:
        made = await call(address.socket)
        if made is None:
            return None
        stack.push_async_callback(made.hang_up)
        with anyio.move_on_after(seconds):
            answer = await made.ask(Greet(PROTOCOL, __version__, plan.fingerprint, os.getpid()))
            if isinstance(answer, Welcome):
                stack.pop_all()
                return Meeting(made.stream, made.decoder, answer, made.pid)
            return answer if isinstance(answer, Other) else None
    return _Silence(made.pid)


def _check(plan: Plan) -> None:
    """See whether the router of *plan* can be made; raises as it does."""
    Router(plan.config, plugins=plan.plugins).check()


async def _retire(address: Address, plan: Plan, other: Other) -> None:
    """Have the host at *address* leave it, and tell the log why."""
    logger.warning(
        "the host of %s (process %s, version %s) was started with another configuration: a new "
        "one takes its place, and it ends with the processes that use it now; give a shared_name "
        "if both are wanted",
        plan.title,
        other.pid,
        other.version,
    )
    if (made := await call(address.socket)) is None:
        return
    try:
        with anyio.move_on_after(_ANSWER_SECONDS):
            if isinstance(await made.ask(GiveUp(__version__, plan.fingerprint)), GivenUp):
                return
        # It ends when nobody has come for its grace time: nobody finds it any more.
        logger.warning("the host (process %s) did not answer that it leaves", other.pid)
    finally:
        await made.hang_up()


def _end(silent: _Silence) -> None:
    """End a host that hangs."""
    logger.error(
        "the host of the shared router (process %s) has not answered for %g s: it is ended, and "
        "another takes its place",
        silent.pid,
        HOST_STALL_SECONDS,
    )
    end_process(silent.pid)
