"""Connections to pretended hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.link import Link, News
from llm_router_mw.shared.messages import Answered, Ask, Load
from llm_router_mw.types import AS_USUAL, EmbedTask
from tests.support.pretended_host import PretendedHost, pretended_hosts
from tests.support.waiting import outcome

TASK = EmbedTask(inputs=("hello",))


def load(number: int) -> Load:
    """Return something that is answered once."""
    return Load(number, "a", True)


def ask(number: int) -> Ask:
    """Return something that is granted."""
    return Ask(number, ("a",), AS_USUAL)


@asynccontextmanager
async def linked(
    on_news: Callable[[News], None] = lambda news: None, **options: Any
) -> AsyncIterator[tuple[Link, PretendedHost]]:
    """A connection that is being used, and its other end."""
    async with pretended_hosts() as hosts, anyio.create_task_group() as tasks:
        link = Link(await hosts.meet(), on_news, **options)
        tasks.start_soon(link.run)
        yield link, await hosts.next()
        tasks.cancel_scope.cancel()


def started(link: Link) -> RequestStream:
    """Start a task whose end nobody has to know."""
    return link.start(1, 0, TASK, release=False, on_finished=lambda: None)


async def link_answers(link: Link, host: PretendedHost) -> bool:
    """Return whether the connection still carries a question and its answer."""
    answers: list[object] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outcome, lambda: link.ask(load), answers)
        await host.answer((await host.hear(Load)).id, None)
    return isinstance(answers[0], Answered)
