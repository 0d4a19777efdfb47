"""By what rules a web process comes by its host; the hosts are pretended."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream, TaskStatus

from llm_router_mw import __version__
from llm_router_mw.config import parse_config
from llm_router_mw.errors import ConfigError, RouterNotRunningError
from llm_router_mw.shared import call, meeting
from llm_router_mw.shared.address import Address, address_of
from llm_router_mw.shared.lock import locked
from llm_router_mw.shared.meeting import Meeting, meet
from llm_router_mw.shared.messages import (
    PROTOCOL,
    GivenUp,
    GiveUp,
    Greet,
    Other,
    Pong,
    ToHost,
    ToWeb,
    Welcome,
    host_decoder,
)
from llm_router_mw.shared.peer import Peer, peer_of
from llm_router_mw.shared.plan import Plan, plan_for
from llm_router_mw.types import RouterView
from llm_router_mw.wire import encode

pytestmark = pytest.mark.asyncio

WELCOME = Welcome("1", 4711, (), RouterView(models_max=1, models_autoload=True))
OTHER = Other(PROTOCOL, "0.9", "another", 4711)
SILENT = """
import signal, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
signal.pause()
"""
"""A program that hangs where it should answer."""

Answer = Callable[[ToHost], bytes | None]
"""What a pretended host answers; None is nothing at all, and no bytes end the call."""


@pytest.fixture
def plan(runtime: object) -> Plan:
    return plan_for(parse_config(shared_name="ours"))


@pytest.fixture
def address(plan: Plan) -> Address:
    return address_of(plan.name, plan.folder)


class PretendedHost:
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.heard: list[ToHost] = []

    @asynccontextmanager
    async def listening(self, address: Address) -> AsyncIterator[None]:
        """Be at *address*."""
        listener = await anyio.create_unix_listener(address.socket)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._attend)
            yield
            tasks.cancel_scope.cancel()

    async def stay(
        self, address: Address, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Be at *address* for good."""
        async with self.listening(address):
            task_status.started()
            await anyio.sleep_forever()

    async def _attend(self, stream: SocketStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            async with stream:
                [message] = host_decoder().feed(await stream.receive())
                self.heard.append(message)
                if answer := self._answer(message):
                    await stream.send(answer)
                if answer != b"":
                    await stream.receive()  # until the other end has had enough


def says(*messages: ToWeb) -> PretendedHost:
    return PretendedHost(lambda asked: b"".join(map(encode, messages)))


class Launches:
    """How many hosts were launched."""

    def __init__(self) -> None:
        self.count = 0


@asynccontextmanager
async def launching(new: PretendedHost, address: Address) -> AsyncIterator[Launches]:
    """Have *new* come to *address* whenever a host is launched."""
    launches = Launches()

    async def launch(plan: Plan, where: Address, lock: int) -> None:
        launches.count += 1
        assert where == address
        assert not address.socket.exists()
        assert os.fstat(lock).st_ino == address.lock.stat().st_ino
        await tasks.start(new.stay, address)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(meeting, "launch", launch)
        async with anyio.create_task_group() as tasks:
            yield launches
            tasks.cancel_scope.cancel()


async def met(plan: Plan) -> Meeting:
    """Return what comes of a meeting, hung up."""
    with anyio.fail_after(20):
        meeting = await meet(plan)
    await meeting.stream.aclose()
    return meeting


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST_STALL_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(meeting, name, 0.1)


async def test_a_host_that_is_there_is_met(plan: Plan, address: Address) -> None:
    host = says(WELCOME, Pong())
    async with launching(host, address) as launches, host.listening(address):
        meeting = await met(plan)
    assert launches.count == 0
    assert meeting.welcome == WELCOME
    assert meeting.host_pid == os.getpid()
    assert list(meeting.decoder.feed(b"")) == [Pong()]
    assert host.heard == [Greet(PROTOCOL, __version__, plan.fingerprint, os.getpid())]


async def test_where_there_is_none_one_is_launched(plan: Plan, address: Address) -> None:
    async with launching(says(WELCOME), address) as launches:
        for _ in range(2):
            await met(plan)
    assert launches.count == 1


async def test_what_a_dead_host_has_left_is_no_host(plan: Plan, address: Address) -> None:
    address.socket.touch()
    async with launching(says(WELCOME), address) as launches:
        await met(plan)
    assert launches.count == 1


async def test_of_many_who_come_at_once_one_launches(plan: Plan, address: Address) -> None:
    async with launching(says(WELCOME), address) as launches, anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(met, plan)
    assert launches.count == 1


async def test_who_waited_for_the_lock_meets_whom_the_other_has_launched(
    plan: Plan, address: Address
) -> None:
    async def come() -> None:
        await met(plan)
        tasks.cancel_scope.cancel()

    host = says(WELCOME)
    async with (
        launching(host, address) as launches,
        anyio.create_task_group() as tasks,
        locked(address, 5),
    ):
        tasks.start_soon(come)
        await anyio.wait_all_tasks_blocked()
        await tasks.start(host.stay, address)
    assert len(host.heard) == 1
    assert launches.count == 0


async def test_a_host_of_another_plan_makes_way(
    plan: Plan, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    old = PretendedHost(lambda asked: encode(GivenUp() if isinstance(asked, GiveUp) else OTHER))
    async with launching(says(WELCOME), address) as launches, old.listening(address):
        await met(plan)
    assert launches.count == 1
    assert old.heard[-1] == GiveUp(__version__, plan.fingerprint)
    [line] = caplog.messages
    assert "the host of ours (process 4711, version 0.9)" in line
    assert "give a shared_name if both are wanted" in line


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"models_dir": "nowhere"}, "models_dir .*nowhere' cannot be read"),
        ({"eviction_policy": "mine"}, "eviction_policy 'mine' is not registered"),
        ({"preload": ["nobody"]}, "preload names the model 'nobody'"),
    ],
)
async def test_no_host_makes_way_for_one_that_cannot_start(
    address: Address, options: dict[str, Any], wrong: str
) -> None:
    plan = plan_for(parse_config(shared_name="ours", **options))
    old = PretendedHost(lambda asked: encode(OTHER))
    async with launching(says(WELCOME), address) as launches, old.listening(address):
        with pytest.raises(ConfigError, match=wrong):
            await meet(plan)
    assert launches.count == 0
    assert all(isinstance(asked, Greet) for asked in old.heard)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answer", [None, b"", encode(Pong())])
async def test_it_need_not_say_that_it_does(
    plan: Plan, address: Address, caplog: pytest.LogCaptureFixture, answer: bytes | None
) -> None:
    old = PretendedHost(lambda asked: answer if isinstance(asked, GiveUp) else encode(OTHER))
    async with launching(says(WELCOME), address) as launches, old.listening(address):
        await met(plan)
    assert launches.count == 1
    assert "did not answer that it leaves" in caplog.text


async def test_it_may_be_gone_before_it_is_asked_to(plan: Plan, address: Address) -> None:
    def leave(asked: ToHost) -> bytes:
        if len(old.heard) == 2:
            address.socket.unlink()
        return encode(OTHER)

    old = PretendedHost(leave)
    async with launching(says(WELCOME), address) as launches, old.listening(address):
        await met(plan)
    assert launches.count == 1
    assert all(isinstance(asked, Greet) for asked in old.heard)


@pytest.mark.parametrize("answer", [b"", encode(Pong()), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_who_speaks_another_language_is_left_alone(
    plan: Plan, address: Address, answer: bytes
) -> None:
    other = PretendedHost(lambda asked: answer)
    async with launching(says(WELCOME), address) as launches, other.listening(address):
        await met(plan)
    assert launches.count == 1


@pytest.mark.usefixtures("impatient")
async def test_a_host_that_hangs_is_ended(
    plan: Plan, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", SILENT, str(address.socket)]
    async with await anyio.open_process(command) as process:
        assert process.stdout is not None
        await process.stdout.receive()
        async with launching(says(WELCOME), address) as launches:
            await met(plan)
            assert await process.wait() == -signal.SIGKILL
    assert launches.count == 1
    assert f"(process {process.pid}) has not answered for 0.1 s" in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_one_in_another_container_cannot_be(
    plan: Plan, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "peer_of", lambda stream: Peer(os.geteuid(), None))
    silent = PretendedHost(lambda asked: None)
    async with launching(says(WELCOME), address) as launches, silent.listening(address):
        assert (await met(plan)).host_pid is None
    assert launches.count == 1


async def test_who_is_not_even_let_in_does_not_wait_for_ever(
    plan: Plan, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "_ROOM_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
        full.bind(str(address.socket))
        full.listen(0)
        first.connect(str(address.socket))  # the only one that there is room for
        async with launching(says(WELCOME), address) as launches:
            await met(plan)
    assert launches.count == 1


async def test_a_host_that_ends_in_the_moment_of_the_call_is_none(
    plan: Plan, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peer_of_none(stream: SocketStream) -> Peer:
        monkeypatch.setattr(call, "peer_of", peer_of)
        raise OSError("not connected")

    monkeypatch.setattr(call, "peer_of", peer_of_none)
    host = says(WELCOME)
    async with launching(host, address) as launches, host.listening(address):
        await met(plan)
    assert len(host.heard) == 1  # when it is looked at more closely, it is there
    assert launches.count == 0


async def test_a_host_of_another_user_is_told_nothing(
    plan: Plan, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "peer_of", lambda stream: Peer(os.geteuid() + 1, 4711))
    host = says(WELCOME)
    async with host.listening(address):
        with pytest.raises(RouterNotRunningError, match=r"process 4711, .* is another user's; end"):
            await met(plan)
    assert host.heard == []


async def test_a_host_that_cannot_be_reached_is_an_error(plan: Plan, address: Address) -> None:
    async with launching(says(OTHER), address) as launches:
        with pytest.raises(RouterNotRunningError, match="was started and cannot be reached"):
            await met(plan)
    assert launches.count == 1
