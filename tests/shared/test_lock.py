"""Of many who want to start a host, one may at a time."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.shared.address import Address
from llm_router_mw.shared.lock import locked

pytestmark = pytest.mark.asyncio

LONG = 30.0


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(str(tmp_path), "s")


async def take(address: Address, patience_seconds: float) -> None:
    """Take the lock and give it back."""
    async with locked(address, patience_seconds):
        pass


async def test_who_comes_second_waits_for_the_first(address: Address) -> None:
    order: list[str] = []

    async def second() -> None:
        async with locked(address, LONG):
            order.append("second")

    async with anyio.create_task_group() as tasks, locked(address, LONG):
        tasks.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        order.append("first")
    assert order == ["first", "second"]


async def test_nobody_waits_for_ever(address: Address) -> None:
    async with locked(address, LONG):
        with pytest.raises(RouterNotRunningError, match=r"tried for 0\.05 s .*s\.log"):
            await take(address, 0.05)
    await take(address, LONG)


async def test_who_has_inherited_it_holds_it_too(address: Address) -> None:
    async with locked(address, LONG) as descriptor:
        inherited = os.dup(descriptor)
    with pytest.raises(RouterNotRunningError):
        await take(address, 0)
    os.close(inherited)
    await take(address, LONG)


async def test_other_addresses_are_not_concerned(address: Address) -> None:
    async with locked(address, LONG), locked(Address(address.directory, "t"), 0):
        pass
