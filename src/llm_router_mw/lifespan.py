"""Lifespan handlers: a router that starts and stops with an app that takes a lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from llm_router_mw.api.settings import CLIENT_STALL_SECONDS
from llm_router_mw.asgi import living_with, router_for
from llm_router_mw.errors import ConfigError
from llm_router_mw.protocols import StartableRouter

AppT = TypeVar("AppT")
Lifespan = Callable[[AppT], AbstractAsyncContextManager[Mapping[str, Any]]]
"""What Starlette, FastAPI and Litestar take as ``lifespan``."""


def llm_lifespan(
    router: StartableRouter | None = None,
    /,
    *,
    client_stall_seconds: float = CLIENT_STALL_SECONDS,
    **options: Any,
) -> Lifespan[Any]:
    """Return a lifespan that runs a router: ``Starlette(lifespan=llm_lifespan(models_dir="m"))``.

    The app's code gets the router by ``get_router(request)``. No routes come with it: for them give
    the same router to ``LLMRouterApp`` or ``LLMRouterMiddleware``.

    Args:
        router: a router to use; one that runs already is neither started nor stopped.
        client_stall_seconds: a client that takes nothing of its stream for so long is cancelled.
        options: of the router, as for ``Router(**options)``.

    Raises:
        ConfigError: an option is wrong, or a router and options were given.
    """
    lived = router_for(router, client_stall_seconds, options)
    return lambda app: living_with(app, lived)


def compose_lifespans(
    *lifespans: Callable[[AppT], AbstractAsyncContextManager[Mapping[str, Any] | None]],
) -> Lifespan[AppT]:
    """Return one lifespan of several: entered in their order, left in reverse.

    The app's state holds what all of them yield. When one fails to start or to stop, those entered
    before it are left all the same, and see its error.

    Raises:
        ConfigError: at the app's start, if two of them yield the same key.
    """

    @asynccontextmanager
    async def composed(app: AppT) -> AsyncIterator[Mapping[str, Any]]:
        state: dict[str, Any] = {}
        async with AsyncExitStack() as stack:
            for lifespan in lifespans:
                added = await stack.enter_async_context(lifespan(app)) or {}
                if twice := sorted(state.keys() & added.keys()):
                    raise ConfigError(
                        f"two lifespans yield the state {twice[0]!r}, and one would hide the "
                        "other: rename it in one of them"
                    )
                state.update(added)
            yield state

    return composed
