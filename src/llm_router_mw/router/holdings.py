"""Memory of ours that is no instance's: a spare worker, a dry run, a cache of conversations.

Each holder has an account. What it says that it holds is charged like a model's memory, and counts
as ours where the pools are looked at. What it can shed is as good as free to a model that needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping

import anyio
import anyio.abc

from llm_router_mw.faults import Faults
from llm_router_mw.protocols import MemoryHolder
from llm_router_mw.scheduler import events

_SHED_SECONDS = 30.0
"""All loads wait for whoever sheds: one that never ends must not hold them up for ever."""

Shed = Callable[[str, int], Awaitable[None]]
"""Told a pool and a number of bytes: frees as much, or all that it can."""


class Account:
    """What one holder has. For the router's loop only."""

    def __init__(
        self,
        name: str,
        shed: Shed | None,
        dispatch: Callable[[events.Event], None],
        room: Callable[[str], int],
        faults: Faults,
    ) -> None:
        self.name = name
        self._faults = faults
        self.held: Mapping[str, int] = {}
        """By pool, as it was last said."""
        self._shed = shed
        self._dispatch = dispatch
        self._room = room
        self._asked: Counter[str] = Counter()
        """By pool, what is still to be shed."""
        self.settled = anyio.Event()
        """Set while nothing is being shed."""
        self.settled.set()

    def hold(self, bytes_by_pool: Mapping[str, int]) -> None:
        """Say what is held now of each pool; replaces what was said before."""
        self.held = dict(bytes_by_pool)
        # While it sheds, what is left is no news: it is on its way to what was asked for.
        if self.settled.is_set():
            self._tell(sheddable=self._shed is not None)

    def room(self, pool: str) -> int:
        """Return how many bytes of *pool* nobody has."""
        return self._room(pool)

    def ask(self, pool: str, n_bytes: int) -> bool:
        """Note that so much is to be shed; return whether somebody has to begin with it."""
        self._asked[pool] += n_bytes
        if not self.settled.is_set():
            return False
        self.settled = anyio.Event()
        return True

    async def give_back(self) -> None:
        """Shed what was asked for."""
        assert self._shed is not None
        before = sum(self.held.values())
        try:
            with anyio.fail_after(_SHED_SECONDS):
                while self._asked:
                    pool, n_bytes = self._asked.popitem()
                    await self._shed(pool, n_bytes)
        except Exception as error:
            self._faults.add("memory holder", self.name, error)
        finally:
            self._asked.clear()
            self.settled.set()
        # One that frees nothing is not asked again until it says something new.
        self._tell(sheddable=sum(self.held.values()) < before)

    def _tell(self, *, sheddable: bool) -> None:
        held = {pool: size for pool, size in self.held.items() if size > 0}
        self._dispatch(events.Held(holder=self.name, bytes_by_pool=held, sheddable=sheddable))


class Holdings:
    """The accounts of one router."""

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        dispatch: Callable[[events.Event], None],
        room: Callable[[str], int],
        faults: Faults,
    ) -> None:
        """*dispatch* sends an event to the scheduler; *room* tells what nobody has of a pool.

        One that cannot give memory back is told to *faults*.
        """
        self._tasks = tasks
        self._faults = faults
        self._dispatch = dispatch
        self._room = room
        self._accounts: dict[str, Account] = {}

    def open(self, name: str, shed: Shed | None = None) -> Account:
        """Return a new account; *shed* gives memory back when models need it."""
        account = Account(name, shed, self._dispatch, self._room, self._faults)
        self._accounts[name] = account
        return account

    def open_for(self, things: Iterable[object]) -> None:
        """Give an account to each of *things* that holds memory."""
        for thing in things:
            if isinstance(thing, MemoryHolder):
                thing.use_account(self.open(thing.name, thing.shed))

    def shed(self, name: str, pool: str, n_bytes: int) -> None:
        """Have the holder *name* give memory back; returns at once."""
        account = self._accounts[name]
        if account.ask(pool, n_bytes):
            self._tasks.start_soon(account.give_back)

    async def settled(self) -> None:
        """Return when all that was to be shed is free."""
        for account in list(self._accounts.values()):
            await account.settled.wait()

    def bytes_by_pool(self) -> dict[str, int]:
        """Return what all hold together."""
        total: Counter[str] = Counter()
        for account in self._accounts.values():
            total.update(account.held)
        return dict(total)
