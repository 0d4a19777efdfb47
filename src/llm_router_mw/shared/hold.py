"""What one request was granted, over the life of several hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from llm_router_mw.protocols import OnQueued
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.keeper import Keeper
from llm_router_mw.shared.link import Link
from llm_router_mw.shared.messages import Release
from llm_router_mw.types import ModelInfo, Task, Wish


class Hold:
    """Leases that were asked for together; each is known by its place among them.

    A host that is gone has taken them with it. They are asked for again, together as before, when
    one of them is next used.
    """

    def __init__(self, keeper: Keeper, names: Sequence[str], wish: Wish) -> None:
        self._keeper = keeper
        self._wish = wish
        self._held = dict(enumerate(names))
        """Names of the models that have not been given back."""
        self._link: Link | None = None
        """To the host that granted them."""
        self._ask = 0
        self._indices: dict[int, int] = {}
        """Place → the host's index of the lease."""
        self._granted: dict[int, tuple[str, ModelInfo]] = {}
        self._renewing = anyio.Lock()

    def model(self, place: int) -> str:
        """Return the id of a leased model."""
        return self._granted[place][0]

    def info(self, place: int) -> ModelInfo:
        """Return the facts about its instance."""
        return self._granted[place][1]

    async def take(self, on_queued: OnQueued | None = None) -> None:
        """Ask for the leases.

        Raises:
            LLMRouterError: they cannot be had.
        """
        places = tuple(self._held)
        link, granted = await self._keeper.grant(tuple(self._held.values()), self._wish, on_queued)
        self._link, self._ask = link, granted.id
        self._indices = {place: index for index, place in enumerate(places)}
        self._granted |= zip(places, granted.leases, strict=True)
        for place in places:
            if place not in self._held:
                self._give_back(link, place)

    async def renew(self) -> None:
        """See to it that a host has granted them that is still there.

        Raises:
            LLMRouterError: they cannot be had again.
        """
        async with self._renewing:
            if self._live_link is None:
                await self.take()

    def start(
        self, place: int, task: Task, *, release: bool, on_finished: Callable[[], None]
    ) -> RequestStream | None:
        """Start *task* under a lease; None if the host is gone. As ``Link.start``."""
        link = self._live_link
        if link is None or place not in self._held:
            return None
        return link.start(
            self._ask, self._indices[place], task, release=release, on_finished=on_finished
        )

    def release(self, place: int) -> None:
        """Give a lease back. Idempotent."""
        if self._held.pop(place, None) is not None and (link := self._live_link) is not None:
            self._give_back(link, place)

    @property
    def _live_link(self) -> Link | None:
        """To the host that granted them, while that lives."""
        return self._link if self._link is not None and self._link.alive else None

    def _give_back(self, link: Link, place: int) -> None:
        link.send(Release(self._ask, self._indices[place]))
