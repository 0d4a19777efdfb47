"""What every router does, wherever its models live: it has a home loop and is used from any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import msgspec

from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.errors import ConfigError, InvalidRequestError, RouterNotRunningError
from llm_router_mw.protocols import Clock, LeaseContract, OnQueued
from llm_router_mw.router.bridge import Bridge, BridgedEvents, BridgedLease
from llm_router_mw.router.hub import EventHub, Subscription
from llm_router_mw.types import AS_USUAL, ModelView, RouterEvent, Wish, WishOptions
from llm_router_mw.wrong_options import unknown_names, wrong_value

T = TypeVar("T")


class HomeRouter(ABC):
    """Belongs to the event loop in which it was entered; can be awaited from any other loop too."""

    _hub: EventHub

    def __init__(self, config: RouterConfig | None, options: dict[str, Any], clock: Clock) -> None:
        """Take *config* or *options*.

        Raises:
            ConfigError: both are given, or an option is wrong.
        """
        if config is not None and not isinstance(config, RouterConfig):
            raise ConfigError(
                f"{config!r} is no RouterConfig; give options by name, as models_dir='models'"
            )
        if config is not None and options:
            raise ConfigError("give a config or options, not both")
        self.config = config if config is not None else parse_config(options)
        self._clock = clock
        self._entered = False
        self._bridge: Bridge | None = None
        self._stack = AsyncExitStack()

    @property
    def running(self) -> bool:
        """Whether it has been started and not yet been closed."""
        return self._bridge is not None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this router is already running, or has not closed yet")
        stack = AsyncExitStack()
        try:
            self._entered = True
            stack.callback(self._left)
            await self._start(stack)
        except BaseException:
            # Not by the stack's own exit: the task groups in it would wrap the error.
            await stack.aclose()
            raise
        self._stack = stack
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The error is the caller's: passed into the task groups below it would come out wrapped.
        await self._stack.aclose()

    @abstractmethod
    async def _start(self, stack: AsyncExitStack) -> None:
        """Start everything, and set the bridge; *stack* then holds how it is to be ended."""

    @abstractmethod
    async def _grant(
        self, names: Sequence[str], wish: Wish, on_queued: OnQueued | None
    ) -> tuple[LeaseContract, ...]:
        """Return leases of all models called *names*. Awaited at home."""

    @abstractmethod
    def models(self) -> tuple[ModelView, ...]:
        """All models and their states, at once: nothing is woken, loaded or waited for."""

    @abstractmethod
    async def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""

    def _left(self) -> None:
        self._entered = False

    def _closing(self) -> None:
        self._bridge = None
        self._hub.close()

    # Leases

    @overload
    def acquire(
        self,
        model: str,
        /,
        **options: Unpack[WishOptions],
    ) -> AbstractAsyncContextManager[LeaseContract]: ...
    @overload
    def acquire(
        self,
        model: str,
        second: str,
        /,
        *models: str,
        **options: Unpack[WishOptions],
    ) -> AbstractAsyncContextManager[tuple[LeaseContract, ...]]: ...
    @asynccontextmanager
    async def acquire(
        self,
        *models: str,
        **options: Unpack[WishOptions],
    ) -> AsyncIterator[Any]:
        """Load or wait for the models and hold them; several names are taken all at once.

        *options* are fields of ``Wish``:

        priority: added to the models' own; higher goes first in the queue.
        keep_alive_seconds: how long the models stay afterwards: 0 releases them, -1 keeps them,
            None is as configured. At most ``max_keep_alive_seconds``.
        timeout_seconds: how long to wait at most, within ``queue_timeout_seconds``.
        autoload: whether they may be loaded for this; None is as configured.
        owner: whose request it is, for what is learned of each owner's habits.

        Raises:
            LLMRouterError: a model is unknown, cannot be loaded, or no room came in time.
        """
        leases = await self.leases(models, wish_of(options))
        try:
            yield leases[0] if len(leases) == 1 else leases
        finally:
            _release_all(leases)

    async def lease(
        self,
        model: str,
        wish: Wish = AS_USUAL,
        *,
        on_queued: OnQueued | None = None,
    ) -> LeaseContract:
        """As ``acquire`` of one model, for callers that release by themselves.

        *on_queued* is told where the request stands while it waits, on the router's loop.
        """
        return (await self.leases((model,), wish, on_queued=on_queued))[0]

    async def leases(
        self,
        names: Sequence[str],
        wish: Wish = AS_USUAL,
        *,
        on_queued: OnQueued | None = None,
    ) -> tuple[LeaseContract, ...]:
        """As ``lease``, of several models at once: all or none."""
        bridge = self._require_bridge()
        if not names:
            raise InvalidRequestError("no model is named; name those that are to be held")
        if bridge.is_home:
            return await self._grant(names, wish, on_queued)
        leases = await bridge.run(lambda: self._grant(names, wish, on_queued), undo=_release_all)
        return tuple(BridgedLease(bridge, lease) for lease in leases)

    # Management and monitoring

    async def wake(self, model: str, *, wait: bool = True) -> None:
        """Have *model* ready: one that sleeps wakes, one that is not loaded at all is loaded."""
        await self.load(model, wait=wait)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RouterEvent]]:
        """Subscribe to events; the first one is a snapshot of all models."""
        bridge = self._require_bridge()

        async def subscribe() -> Subscription:
            return self._hub.subscribe(self._snapshot)

        subscription = await self._at_home(subscribe, self._hub.unsubscribe)
        try:
            yield subscription if bridge.is_home else BridgedEvents(bridge, subscription)
        finally:
            bridge.run_soon(lambda: self._hub.unsubscribe(subscription))

    def _snapshot(self) -> RouterEvent:
        return RouterEvent(
            kind="snapshot", model="*", at_seconds=self._clock(), models=self.models()
        )

    async def _at_home(
        self, call: Callable[[], Awaitable[T]], undo: Callable[[T], None] | None = None
    ) -> T:
        """Return what *call* returns on the home loop; as ``Bridge.run``."""
        bridge = self._require_bridge()
        return await (call() if bridge.is_home else bridge.run(call, undo))

    def _require_bridge(self) -> Bridge:
        bridge = self._bridge
        if bridge is None:
            raise not_running()
        return bridge


def wish_of(options: WishOptions) -> Wish:
    """Return the wish that keywords describe.

    Raises:
        InvalidRequestError: one of them is unknown, or of the wrong type.
    """
    if unknown := options.keys() - set(Wish.__struct_fields__):
        raise InvalidRequestError(unknown_names("option", unknown, Wish.__struct_fields__))
    try:
        return msgspec.convert(options, Wish)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(wrong_value(str(error), Wish)) from error


def not_running() -> RouterNotRunningError:
    """Return the error of a router that has not been started, or was closed."""
    return RouterNotRunningError(
        "the router is not running: enter it with 'async with', or let the app's lifespan start it"
    )


def _release_all(leases: Iterable[LeaseContract]) -> None:
    for lease in leases:
        lease.release()
