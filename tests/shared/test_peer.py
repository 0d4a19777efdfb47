"""The kernel says who is at the other end of a socket."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import cast

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from llm_router_mw.shared.peer import Peer, end_process, peer_of


@pytest.mark.asyncio
async def test_both_ends_know_each_other(runtime: Path) -> None:
    met: list[Peer] = []

    async def attend(stream: SocketStream) -> None:
        async with stream:
            met.append(peer_of(stream))

    listener = await anyio.create_unix_listener(runtime / "s")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, attend)
        async with await anyio.connect_unix(runtime / "s") as stream:
            met.append(peer_of(stream))
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        tasks.cancel_scope.cancel()
    assert met == [Peer(os.geteuid(), os.getpid())] * 2
    assert met[0].is_this_user
    assert not Peer(os.geteuid() + 1, 1).is_this_user


class Told:
    """A socket of which another kernel tells."""

    def __init__(self, **answers: bytes) -> None:
        self._answers = answers

    def extra(self, attribute: object) -> Told:
        assert attribute is SocketAttribute.raw_socket
        return self

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return self._answers[f"{'socket' if level == socket.SOL_SOCKET else 'local'}{option}"]

    @property
    def stream(self) -> SocketStream:
        return cast("SocketStream", self)


def test_a_process_in_another_container_has_no_number_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "SO_PEERCRED", 17, raising=False)
    told = Told(socket17=struct.pack("3i", 0, 1000, 1000))
    assert peer_of(told.stream) == Peer(1000, None)


def test_macos_says_it_in_two_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    told = Told(local1=struct.pack("IIh2x16I", 0, 501, 1, *range(16)), local2=struct.pack("i", 77))
    assert peer_of(told.stream) == Peer(501, 77)


def test_a_process_is_ended_if_it_is_known_and_there() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        end_process(process.pid)
        assert process.wait() == -signal.SIGKILL
    end_process(process.pid)
    end_process(None)
