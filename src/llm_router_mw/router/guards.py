"""Asks the guards about each request, and tells them what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
import anyio.abc

from llm_router_mw.errors import GuardFailedError, LLMRouterError, RequestLeftError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import Clock, GuardedRequest, RequestGuard, RequestOutcome
from llm_router_mw.router.lease import Lease
from llm_router_mw.types import Model, Usage, Wish

_BEFORE_SECONDS = 10.0
_AFTER_SECONDS = 10.0


class Guards:
    """The guards of one running router."""

    def __init__(
        self,
        guards: Collection[RequestGuard],
        faults: Faults,
        tasks: anyio.abc.TaskGroup,
        clock: Clock,
    ) -> None:
        self._guards = tuple(guards)
        self._faults = faults
        self._tasks = tasks
        self._clock = clock
        self._count = 0

    async def admit(self, models: tuple[str, ...], owner: str, priority: int) -> Passage | None:
        """Return the passage of a request that all guards let pass; None if there are none.

        Raises:
            LLMRouterError: one refused it; those who had let it pass are told.
            GuardFailedError: one failed, or took too long.
        """
        if not self._guards:
            return None
        self._count += 1
        request = GuardedRequest(id=self._count, models=models, owner=owner, priority=priority)
        passage = Passage(request, self._tell, self._clock)
        try:
            for guard in self._guards:
                await self._ask(guard, request)
                passage.guards.append(guard)
        except LLMRouterError as error:
            passage.refused(error)
            raise
        except BaseException:
            passage.refused(RequestLeftError("the request left before it was let pass"))
            raise
        return passage

    async def guarded(
        self, models: Sequence[Model], wish: Wish, serve: Callable[[], Awaitable[tuple[Lease, ...]]]
    ) -> tuple[Lease, ...]:
        """Return the leases that *serve* gets for a request, if all guards let it pass.

        Raises:
            LLMRouterError: a guard refused it, or *serve* did.
        """
        names = tuple(model.id for model in models)
        passage = await self.admit(names, wish.owner, wish.priority)
        if passage is None:
            return await serve()
        try:
            leases = await serve()
        except LLMRouterError as error:
            passage.refused(error)
            raise
        except BaseException:
            passage.refused(RequestLeftError("the request left before it was served"))
            raise
        passage.served(len(leases))
        for lease in leases:
            lease.when_over(passage.ended)
        return leases

    async def _ask(self, guard: RequestGuard, request: GuardedRequest) -> None:
        try:
            with anyio.fail_after(_BEFORE_SECONDS):
                await guard.before(request)
        except LLMRouterError:
            raise
        except Exception as error:
            self._faults.add("request guard", guard.name, error)
            raise GuardFailedError(
                "the request could not be checked, so it is not served; try again later"
            ) from error

    def _tell(self, passage: Passage, outcome: RequestOutcome) -> None:
        for guard in passage.guards:
            self._tasks.start_soon(self._after, guard, passage.request, outcome)

    async def _after(
        self, guard: RequestGuard, request: GuardedRequest, outcome: RequestOutcome
    ) -> None:
        # Shielded: what a request has used is told also when the router closes.
        with anyio.CancelScope(shield=True):
            try:
                with anyio.fail_after(_AFTER_SECONDS):
                    await guard.after(request, outcome)
            except Exception as error:
                self._faults.add("request guard", guard.name, error)


class Passage:
    """One request that was let pass, until it is over."""

    def __init__(
        self,
        request: GuardedRequest,
        tell: Callable[[Passage, RequestOutcome], None],
        clock: Clock,
    ) -> None:
        self.request = request
        self.guards: list[RequestGuard] = []
        """Those who let it pass."""
        self._tell = tell
        self._clock = clock
        self._came_at = clock()
        self._served_at = self._came_at
        self._leases = 0
        self._usage = Usage()
        self._over = False

    def refused(self, error: LLMRouterError) -> None:
        """The request did not get its models."""
        self._end(
            RequestOutcome(
                status="failed",
                failure=error.to_failure(),
                waited_seconds=self._clock() - self._came_at,
            )
        )

    def served(self, leases: int) -> None:
        """The request has got *leases*; each of them is told by :meth:`ended`."""
        self._served_at = self._clock()
        self._leases = leases

    def ended(self, usage: Usage) -> None:
        """A lease is over, and has used *usage*."""
        self._usage = self._usage + usage
        self._leases -= 1
        if self._leases == 0:
            self._end(
                RequestOutcome(
                    status="served",
                    usage=self._usage,
                    waited_seconds=self._served_at - self._came_at,
                    held_seconds=self._clock() - self._served_at,
                )
            )

    def _end(self, outcome: RequestOutcome) -> None:
        if not self._over:
            self._over = True
            self._tell(self, outcome)
