"""Who is at the other end of a Unix socket, as the kernel says."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from anyio.abc import SocketAttribute, SocketStream

_CREDENTIALS = struct.Struct("3i")
"""Linux's ``ucred``: process, user, group."""
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_BSD_CREDENTIALS = struct.Struct("II")
"""The beginning of macOS' ``xucred``: version and user."""
_BSD_BYTES = 128
"""More than a whole ``xucred`` has."""
_NUMBER = struct.Struct("i")


class Peer(NamedTuple):
    """The process that connected, or that listens."""

    uid: int
    pid: int | None
    """None if it is not known here, as of a process in another container."""

    @property
    def is_this_user(self) -> bool:
        """Whether it may have what this user has."""
        return self.uid == os.geteuid()


def peer_of(stream: SocketStream) -> Peer:
    """Return who is at the other end of *stream*.

    Raises:
        OSError: the kernel does not say.
    """
    end = stream.extra(SocketAttribute.raw_socket)
    if hasattr(socket, "SO_PEERCRED"):
        said = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(said)
    else:
        _, uid = _BSD_CREDENTIALS.unpack_from(
            end.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _BSD_BYTES)
        )
        (pid,) = _NUMBER.unpack(end.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, _NUMBER.size))
    return Peer(uid, pid or None)


def end_process(pid: int | None) -> None:
    """Kill the process *pid*, if it is known and still there."""
    if pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
