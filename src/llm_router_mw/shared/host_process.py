"""The host as a process: takes its order, is a host, and ends politely when it is told to."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
from contextlib import AsyncExitStack

import anyio

from llm_router_mw import __version__
from llm_router_mw.router import Router
from llm_router_mw.shared import host_log
from llm_router_mw.shared.card import shown
from llm_router_mw.shared.failures import failure_of
from llm_router_mw.shared.host import Host
from llm_router_mw.shared.order import Failed, Order, Ready
from llm_router_mw.shared.seat import seated
from llm_router_mw.shared.starter import Starter

logger = logging.getLogger("llm_router_mw.shared")


def run() -> int:
    """Be the host that our starter orders; return the exit code."""
    starter = Starter.seize()
    faulthandler.enable()
    order = starter.order()
    # Also where the loop hangs, in a plugin's import perhaps; and then the log says where.
    faulthandler.dump_traceback_later(order.start_seconds, exit=True)
    host_log.configure(order.address.log)
    return anyio.run(_live, order, starter)


async def _live(order: Order, starter: Starter) -> int:
    logger.info("process %d is the host of %s", os.getpid(), order.plan.title)
    try:
        async with AsyncExitStack() as stack:
            host = await _made(stack, order)
            faulthandler.cancel_dump_traceback_later()
            starter.tell(Ready(os.getpid()))
            logger.info("web processes may come")
            await _run_until_signal(host)
            logger.info("ending")
    except Exception as error:
        failure = failure_of(error)
        logger.error("the host ends: %s", failure.message)
        starter.tell(Failed(failure))
        return 1
    logger.info("ended")
    return 0


async def _made(stack: AsyncExitStack, order: Order) -> Host:
    """Return the host of *order*, at its address; *stack* holds how everything is to be ended."""
    plan, address = order.plan, order.address
    stack.enter_context(shown(plan, address))
    router = Router(plan.config, plugins=plan.plugins)
    await stack.enter_async_context(router)
    seat = await stack.enter_async_context(seated(address))
    return Host(
        router,
        seat.listener,
        fingerprint=plan.fingerprint,
        version=__version__,
        grace_seconds=plan.grace_seconds,
        on_give_up=seat.give_up,
    )


async def _run_until_signal(host: Host) -> None:
    """Run *host* until nobody needs it, or it is told to end."""

    async def end_at_signal() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                logger.info("%s: the host is to end", number.name)
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_at_signal)
        await host.run()
        tasks.cancel_scope.cancel()
