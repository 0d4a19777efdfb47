"""The host: who is let in, how long it stays, and how it makes way for another."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.abc
import pytest
from msgspec.structs import replace

from llm_router_mw.shared import greeting as greeting_file
from llm_router_mw.shared import host as host_file
from llm_router_mw.shared.host import Host
from llm_router_mw.shared.messages import (
    PROTOCOL,
    GivenUp,
    GiveUp,
    Greet,
    Inspect,
    Other,
    Ping,
    Pong,
    Release,
    Status,
    Welcome,
)
from llm_router_mw.shared.peer import Peer
from llm_router_mw.testing import FakeEngine, make_router
from llm_router_mw.types import CompletionTask, ContentDelta, InstanceState
from llm_router_mw.wire import encode
from tests.support.real_router import reached, state
from tests.support.waiting import until
from tests.support.web_process import FINGERPRINT, GREET, VERSION, Address, WebProcess, hosting

pytestmark = pytest.mark.asyncio

GIVE_UP = GiveUp("2.0", "another plan")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is given time to come for the first time."""
    monkeypatch.setattr(host_file, "_FIRST_SECONDS", 0.0)


async def ended(address: Address) -> None:
    with anyio.fail_after(10):
        await address.ended.wait()


async def give_up(address: Address) -> None:
    """Let the host give its address up."""
    async with address.connected() as other:
        await other.say(GIVE_UP)
        assert await other.next() == GivenUp()
        await other.hung_up()


# Who is let in


async def test_who_has_the_same_plan_is_welcome(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await web.say(GREET)
        welcome = await web.next()
        assert isinstance(welcome, Welcome)
        assert (welcome.version, welcome.pid) == (VERSION, os.getpid())


async def test_what_comes_with_the_greeting_is_heard(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await web.say(GREET, Ping())
        assert await web.hear(Pong) == Pong()


async def test_a_greeting_may_come_in_pieces(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        frame = encode(GREET)
        for piece in (frame[:2], frame[2:9], frame[9:]):
            await web.stream.send(piece)
            await anyio.lowlevel.checkpoint()
        assert isinstance(await web.next(), Welcome)


@pytest.mark.parametrize(
    "greet",
    [
        replace(GREET, protocol=PROTOCOL + 1),
        replace(GREET, version="1.1"),
        replace(GREET, fingerprint="x"),
    ],
)
async def test_who_has_another_is_told_what_this_one_is(tmp_path: Path, greet: Greet) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await web.say(greet)
        assert await web.next() == Other(PROTOCOL, VERSION, FINGERPRINT, os.getpid())
        await web.hung_up()


async def test_who_looks_is_told_about_the_host(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed(), address.connected() as looker:
        await looker.say(Inspect())
        assert await looker.next() == Status(
            version=VERSION,
            fingerprint=FINGERPRINT,
            pid=os.getpid(),
            web_processes=(GREET.pid,),
            draining=False,
            models=address.router.models(),
        )
        await looker.hung_up()


async def test_another_user_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    somebody = Peer(uid=os.geteuid() + 1, pid=99)
    async with (
        hosting(tmp_path, peer=lambda stream: somebody) as address,
        address.connected() as web,
    ):
        await web.hung_up()
    assert f"process 99 of user {somebody.uid} connected and was refused" in caplog.text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(Ping()), "Ping came before a greeting"),
        (b"GET / HTTP/1.1\r\n\r\n", "a frame announces 542393671 bytes"),
        ((1 << 20).to_bytes(4, "little"), "a frame announces 1048576 bytes"),
        (b"\x01\x00\x00\x00\xc1", "a frame is not a known message"),
    ],
)
async def test_who_speaks_another_language_is_cut_off(
    tmp_path: Path, data: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(tmp_path) as address, address.connected() as web:
        await web.stream.send(data)
        await web.hung_up()
    assert f"somebody connected who speaks another language: {reason}" in caplog.text


async def test_who_is_let_in_may_send_large_frames(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        long = CompletionTask(prompt="x" * 100_000)
        _, echo, _ = await web.answer(await web.start(await web.granted("a"), long))
        assert echo == ContentDelta("x" * 100_000)


async def test_who_says_nothing_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting_file, "_SECONDS", 0.01)
    async with hosting(tmp_path) as address, address.connected() as web:
        await web.hung_up()


async def test_who_leaves_at_once_is_not_missed(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address:
        async with address.connected():
            pass
        async with address.welcomed():
            pass


async def test_trouble_with_one_is_not_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    peers: Iterator[Peer] = iter([Peer(os.geteuid(), 1)])
    async with (
        hosting(tmp_path, peer=lambda stream: next(peers)) as address,
        address.welcomed() as web,
    ):
        async with address.connected() as other:
            await other.hung_up()
        await web.say(Ping())
        assert await web.hear(Pong) == Pong()
    assert "a connection to the shared router failed" in caplog.text


class Flaky:
    """A listener that fails once: so many files are open."""

    def __init__(self, listener: anyio.abc.SocketListener) -> None:
        self._listener = listener
        self._broken = True

    async def accept(self) -> anyio.abc.SocketStream:
        if self._broken:
            self._broken = False
            raise anyio.BrokenResourceError from OSError("too many open files")
        return await self._listener.accept()

    async def __aenter__(self) -> Flaky:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._listener.aclose()


async def test_it_outlives_times_without_a_free_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_file, "_ACCEPT_AGAIN_SECONDS", 0.0)
    listener = Flaky(await anyio.create_unix_listener(tmp_path / "host.sock"))
    async with make_router(tmp_path) as router, anyio.create_task_group() as tasks:
        host = Host(
            router,
            listener,  # type: ignore[arg-type]  # as much of one as is needed
            fingerprint=FINGERPRINT,
            version=VERSION,
            grace_seconds=60.0,
            on_give_up=lambda: None,
        )
        tasks.start_soon(host.run)
        async with await anyio.connect_unix(tmp_path / "host.sock") as stream:
            web = WebProcess(stream)
            await web.say(GREET)
            assert isinstance(await web.next(), Welcome)
        tasks.cancel_scope.cancel()
    assert "no web process can be let in: too many open files" in caplog.text


# How long it stays


@pytest.mark.usefixtures("impatient")
async def test_it_ends_when_nobody_ever_comes(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_seconds=0.0) as address:
        await ended(address)
        assert address.given_up == 0


async def test_who_started_it_has_time_to_come(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_seconds=0.0) as address:
        await anyio.sleep(0.1)
        async with address.welcomed():
            assert not address.ended.is_set()
        await ended(address)


async def test_it_stays_while_somebody_is_connected(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_seconds=0.05) as address, address.welcomed() as web:
        async with address.welcomed():
            pass
        await anyio.sleep(0.2)
        await web.say(Ping())
        assert await web.hear(Pong) == Pong()
        assert not address.ended.is_set()


async def test_who_left_may_come_back_in_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "llm_router_mw.shared")
    async with hosting(tmp_path, grace_seconds=60.0) as address:
        for _ in range(2):
            async with address.welcomed():
                pass
            await address.deserted()
    come_and_gone = ["web process 4711 has come", "web process 4711 has gone; 0 left"]
    assert [record.message for record in caplog.records if "4711" in record.message] == (
        come_and_gone * 2
    )


async def test_it_ends_some_time_after_the_last_has_left(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_seconds=0.05) as address:
        async with address.welcomed():
            pass
        await ended(address)
        with pytest.raises(OSError, match="refused"):
            await anyio.connect_unix(address.path)


async def test_who_comes_in_the_moment_of_its_end_may_stay(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_seconds=0.5) as address:
        async with address.welcomed():
            pass
        async with address.connected() as web:
            await anyio.wait_all_tasks_blocked()  # it waits for a greeting
            await web.say(GREET)
            time.sleep(0.6)  # noqa: ASYNC251  # both are due now
            assert isinstance(await web.next(), Welcome)
            await web.say(Ping())
            assert await web.hear(Pong) == Pong()


async def test_who_only_looks_does_not_keep_it(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_seconds=0.0) as address, address.connected() as looker:
        async with address.welcomed():
            pass
        await ended(address)
        await looker.hung_up()


async def test_when_it_is_cancelled_all_connections_end(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.hold = True
    async with make_router(tmp_path, fake_engine=engine) as router:
        async with anyio.create_task_group() as tasks:
            path = tmp_path / "host.sock"
            host = Host(
                router,
                await anyio.create_unix_listener(path),
                fingerprint=FINGERPRINT,
                version=VERSION,
                grace_seconds=60.0,
                on_give_up=lambda: None,
            )
            tasks.start_soon(host.run)
            async with Address(path, router).welcomed() as web:
                await web.start(await web.granted("a"))
                await until(lambda: engine.latest("a").streams)
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await web.hung_up()
        assert engine.latest("a").streams[0].cancelled
        assert not any(view.leases for view in router.models())


# How it makes way


async def test_it_gives_its_address_up_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(tmp_path) as address, address.welcomed():
        await give_up(address)
        await give_up(address)
        assert address.given_up == 1
    [warning] = [record.message for record in caplog.records if "replaced" in record.message]
    assert "version 2.0 and fingerprint another plan" in warning


async def test_without_anybody_connected_it_ends_then(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address:
        await give_up(address)
        await ended(address)


async def test_who_gives_the_address_to_another_need_not_wait_for_the_answer(
    tmp_path: Path,
) -> None:
    async with hosting(tmp_path) as address:
        async with address.connected() as other:
            await other.say(GIVE_UP)
        await ended(address)


async def test_it_goes_on_serving_who_is_connected_and_nobody_else(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address:
        async with address.welcomed() as web:
            await give_up(address)
            async with address.connected() as late:
                await late.say(GREET)
                assert isinstance(await late.next(), Other)
            async with address.connected() as looker:
                await looker.say(Inspect())
                status = await looker.next()
                assert isinstance(status, Status)
                assert status.draining
            assert len(await web.answer(await web.start(await web.granted("a")))) == 3
        await ended(address)


async def test_models_leave_as_soon_as_nobody_uses_them(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        await address.router.load("a")
        await address.router.load("c")
        await address.router.sleep("c")
        ask = await web.granted("b")
        await give_up(address)
        await reached(address.router, "a", InstanceState.UNLOADED)
        await reached(address.router, "c", InstanceState.UNLOADED)
        assert state(address.router, "b") is InstanceState.LOADED
        await web.say(Release(ask, 0))
        await reached(address.router, "b", InstanceState.UNLOADED)
        assert len(await web.answer(await web.start(await web.granted("b")))) == 3
