"""A host listens at its address until it makes way, and takes away only what is its own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import anyio
import pytest

from llm_router_mw.shared.address import Address
from llm_router_mw.shared.call import call
from llm_router_mw.shared.seat import seated

pytestmark = pytest.mark.asyncio


@pytest.fixture
def address(runtime: Path) -> Address:
    return Address(str(runtime), "s")


def files(address: Address) -> list[str]:
    return sorted(file.name for file in Path(address.directory).iterdir())


async def answers(path: Path) -> bool:
    made = await call(path)
    if made is not None:
        await made.hang_up()
    return made is not None


async def test_it_listens_for_this_user_alone_until_it_leaves(address: Address) -> None:
    async with seated(address):
        assert await answers(address.socket)
        assert address.socket.stat().st_mode & 0o777 == 0o600
    assert files(address) == []


async def test_what_was_left_by_a_dead_one_is_no_hindrance(address: Address) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address.socket))
    assert not await answers(address.socket)
    async with seated(address):
        assert await answers(address.socket)


async def test_who_has_made_way_still_listens_beside_the_next(address: Address) -> None:
    aside = address.socket_of(os.getpid())
    async with seated(address) as first:
        first.give_up()
        assert not await answers(address.socket)
        assert await answers(aside)
        async with seated(address):
            assert files(address) == sorted([address.socket.name, aside.name])
    assert files(address) == []


async def test_the_next_ones_socket_is_not_touched(address: Address) -> None:
    async with seated(address) as first, seated(address):  # who has not asked
        first.give_up()
        first.leave()
        assert files(address) == [address.socket.name]
        assert await answers(address.socket)
    assert files(address) == []


async def test_somebody_may_have_tidied_up(address: Address) -> None:
    async with seated(address) as seat:
        address.socket.unlink()
        seat.give_up()
    assert files(address) == []
    with anyio.fail_after(5):
        assert not await answers(address.socket)
