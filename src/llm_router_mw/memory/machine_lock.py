"""One admission at a time per memory pool, among all routers of this user on the machine.

Two routers that each see the same free memory would both take it. So whoever looks at a pool in
order to take from it holds the pool's lock file until what was taken can be seen by others, and
says beside it how much is on its way. Locks and reservations are the kernel's file locks: they end
with the process that holds them, however that ends. Where files cannot be locked (Windows, or no
directory that is private) routers are not coordinated, which is said once.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import msgspec

from llm_router_mw.runtime_directory import (
    can_lock,
    is_held,
    make_private,
    put_locked,
    runtime_directory,
    try_lock,
)

logger = logging.getLogger("llm_router_mw.memory")

_LOCK, _RESERVATION, _PRESENCE = ".lock", ".reservation", ".router"
_decoder = msgspec.json.Decoder(dict[str, int])


class MachineLock:
    """The locks of one router. Nothing here waits: all calls take microseconds.

    Not for several threads at once.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """Meet the others in *directory*, which is made if it does not exist."""
        self._directory = runtime_directory() if directory is None else directory
        self._warned = self._met = False
        # Numbers of processes are not unique where containers share the directory.
        self._token = secrets.token_hex(8)
        self._numbers = count()
        self._held: dict[str, tuple[int, int]] = {}
        """Descriptor and number of holds of each pool that is ours at the moment."""
        self._presence: tuple[int, Path] | None = None
        """What others see as long as this router runs."""

    def arrive(self) -> None:
        """Let other routers see that there is this one, until :meth:`leave`."""
        try:
            make_private(self._directory)
            self._presence = self._put(f"{self._token}{_PRESENCE}", b"")
        except OSError as error:
            self._warn(error)
        self._look_around()

    def leave(self) -> None:
        """Let others see no longer that there is this router."""
        if self._presence is not None:
            _withdraw([self._presence])
            self._presence = None

    def _look_around(self) -> None:
        """Say, the first time, that there is another router."""
        if self._met or not can_lock():
            return
        with suppress(OSError):
            for file in self._directory.glob(f"*{_PRESENCE}"):
                if not file.name.startswith(self._token) and is_held(file):
                    self._met = True
                    logger.warning(
                        "another router runs on this machine: each takes only what the other "
                        "leaves free, and neither can send the other's models away; let all "
                        'processes share one (mode="shared", with one shared_name), if their '
                        "models are to make way for each other"
                    )
                    return

    def try_hold(self, pools: Iterable[str]) -> Hold | None:
        """Lock all of *pools*, or none; None if another router holds one of them: try again.

        Holds of the same router do not exclude each other: its own ledger does that.
        """
        taken: list[str] = []
        try:
            make_private(self._directory)  # each time: somebody may have tidied up
            # In one order for everybody, so that two cannot have half each for ever.
            for pool in sorted(set(pools)):
                if not self._take(pool):
                    self._give_back(taken)
                    return None
                taken.append(pool)
        except OSError as error:
            self._warn(error)
        return Hold(self, taken)

    def pending(self) -> dict[str, int]:
        """Return the bytes by pool that other routers have reserved and maybe not yet taken.

        Reservations of processes that are gone are removed.
        """
        found: dict[str, int] = {}
        if not can_lock():
            return found
        self._look_around()
        try:
            make_private(self._directory)
            for file in self._directory.glob(f"*{_RESERVATION}"):
                if not file.name.startswith(self._token):
                    for pool, n_bytes in _reserved(file).items():
                        found[pool] = found.get(pool, 0) + n_bytes
        except OSError as error:
            self._warn(error)
        return found

    def _take(self, pool: str) -> bool:
        descriptor, holds = self._held.get(pool, (-1, 0))
        if not holds:
            name = quote(pool, safe="") + _LOCK
            descriptor = os.open(self._directory / name, os.O_RDWR | os.O_CREAT, 0o600)
            if not try_lock(descriptor):
                os.close(descriptor)
                return False
        self._held[pool] = (descriptor, holds + 1)
        return True

    def _give_back(self, pools: Iterable[str]) -> None:
        for pool in pools:
            descriptor, holds = self._held[pool]
            if holds > 1:
                self._held[pool] = (descriptor, holds - 1)
            else:
                del self._held[pool]
                os.close(descriptor)

    def _warn(self, error: OSError) -> None:
        if not self._warned and can_lock():
            self._warned = True
            logger.warning(
                "several routers on this machine might take the same memory: %s; set "
                "XDG_RUNTIME_DIR to a directory that only this user may use",
                error,
            )

    def _published(self, bytes_by_pool: Mapping[str, int]) -> list[tuple[int, Path]]:
        """Return the reservation that was made; none where it could not be."""
        try:
            make_private(self._directory)
            return [self._publish(bytes_by_pool)]
        except OSError as error:
            self._warn(error)
            return []

    def _publish(self, bytes_by_pool: Mapping[str, int]) -> tuple[int, Path]:
        name = f"{self._token}-{next(self._numbers)}{_RESERVATION}"
        return self._put(name, msgspec.json.encode(bytes_by_pool))

    def _put(self, name: str, content: bytes) -> tuple[int, Path]:
        """Return a new file, locked for as long as it is open."""
        file = self._directory / name
        return put_locked(file, content), file


class Hold:
    """The locks of one admission, and its reservation. End it with :meth:`release`."""

    def __init__(self, lock: MachineLock, pools: Iterable[str]) -> None:
        self._lock = lock
        self._pools = list(pools)
        self._reservations: list[tuple[int, Path]] = []

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def reserve(self, bytes_by_pool: Mapping[str, int]) -> None:
        """Let other routers know that so much is on its way; replaces what was said before."""
        before = self._reservations
        self._reservations = self._lock._published(bytes_by_pool)
        _withdraw(before)

    def unlock(self) -> None:
        """Let others look at the pools already; the reservation stays until :meth:`release`."""
        pools, self._pools = self._pools, []
        self._lock._give_back(pools)

    def release(self) -> None:
        """Let others have the pools: what was to be taken shows, or will not be. Idempotent."""
        reservations, self._reservations = self._reservations, []
        _withdraw(reservations)
        self.unlock()


def _withdraw(reservations: Iterable[tuple[int, Path]]) -> None:
    for descriptor, file in reservations:
        with suppress(OSError):  # what stays is removed by the first who finds it unlocked
            file.unlink()
        os.close(descriptor)


def _reserved(file: Path) -> dict[str, int]:
    """Return what *file* reserves; remove it if its owner is gone."""
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return {}  # withdrawn a moment ago
    try:
        if try_lock(descriptor):
            file.unlink(missing_ok=True)
            return {}
        with os.fdopen(os.dup(descriptor), "rb") as content:
            return _decoder.decode(content.read())
    except msgspec.MsgspecError:
        return {}  # of a version that says it in another way
    finally:
        os.close(descriptor)
