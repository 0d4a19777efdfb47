"""Starts the process of a host, and waits until web processes may come."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress

import anyio
import anyio.abc

from llm_router_mw import wire
from llm_router_mw.errors import RouterNotRunningError, error_from
from llm_router_mw.shared.address import Address
from llm_router_mw.shared.host_log import fresh_log, last_lines
from llm_router_mw.shared.order import Failed, Order, Ready, answer_decoder
from llm_router_mw.shared.plan import Plan, is_relevant

logger = logging.getLogger("llm_router_mw.shared")

START_SECONDS = 120.0
"""A host that is not ready after so long ends."""
_GRACE_SECONDS = 10.0
"""What a host that does not become ready has to end by itself: it knows more than we do."""


async def launch(plan: Plan, address: Address, lock: int) -> None:
    """Start a host of *plan* at *address* and return when web processes may come.

    It is nobody's child, and holds the descriptor *lock* until then.

    Raises:
        ConfigError: the router cannot be made like this.
        PluginError: a plugin is at fault.
        RouterNotRunningError: the host did not start.
    """
    process = await _spawn(plan, address, lock)
    answer: Ready | Failed | None = None
    try:
        with anyio.move_on_after(START_SECONDS + _GRACE_SECONDS) as bound:
            answer = await _asked(process, Order(plan, address, lock, START_SECONDS))
        if bound.cancelled_caught:
            _kill_all(process.pid)
    finally:
        await _forget(process)
    if isinstance(answer, Failed):
        raise error_from(answer.failure)
    if answer is None:
        raise _not_started(address)
    logger.info(
        "the host of %s was started: process %d, its log is %s",
        plan.title,
        answer.pid,
        address.log,
    )


async def _spawn(plan: Plan, address: Address, lock: int) -> anyio.abc.Process:
    log = fresh_log(address.log)
    try:
        # Cancelled half-way, it would leave a process behind that nobody waits for.
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                # Its title makes a list of processes readable. -P: as workers are started.
                (sys.executable, "-P", "-m", "llm_router_mw.shared", plan.title),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=plan.folder,
                env=_environment(plan),
                start_new_session=True,  # signals for the web server's group are not for it
                pass_fds=(lock,),
            )
    except OSError as error:
        raise RouterNotRunningError(f"the shared router cannot be started: {error}") from error
    finally:
        os.close(log)
    return process


def _environment(plan: Plan) -> dict[str, str]:
    """Return what the host sees: all that we do, as plugins may need any of it."""
    others = {name: value for name, value in os.environ.items() if not is_relevant(name)}
    # An empty entry stands for the working directory.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**others, **plan.environ, "PYTHONPATH": path}


async def _asked(process: anyio.abc.Process, order: Order) -> Ready | Failed | None:
    """Return the host's answer to *order*; None if it ended without one."""
    assert process.stdin is not None
    assert process.stdout is not None
    decoder = answer_decoder()
    try:
        await process.stdin.send(wire.encode(order))
        while True:
            for answer in decoder.feed(await process.stdout.receive()):
                return answer
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return None


def _kill_all(group: int) -> None:
    """Kill all that is left of process *group*, which is the host and none of its workers."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


async def _forget(process: anyio.abc.Process) -> None:
    """Have done with our own child: the host is its child, and has long been on its own."""
    with anyio.CancelScope(shield=True), suppress(ProcessLookupError):
        process.kill()
        await process.aclose()


def _not_started(address: Address) -> RouterNotRunningError:
    lines = last_lines(address.log)
    logger.error("the host of the shared router did not start; it said last:\n%s", lines)
    return RouterNotRunningError(
        "the shared router did not start: its process ended, or was not ready in time; the log "
        "says why"
    )
