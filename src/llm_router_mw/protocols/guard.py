"""Who may refuse requests, and is told what became of them."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from llm_router_mw.types import Failure, Usage


class GuardedRequest(Struct, frozen=True, kw_only=True):
    """A request for models, before it waits for any: of a client, or of the app's own code."""

    id: int
    """Unique while the router runs."""
    models: tuple[str, ...]
    """Ids."""
    owner: str = ""
    """A name for the users of the API key it came with; empty where it came with none."""
    priority: int = 0


class RequestOutcome(Struct, frozen=True, kw_only=True):
    """What became of a request."""

    status: Literal["served", "failed"]
    """``failed``: it never got its models, because of ``failure``."""
    failure: Failure | None = None
    usage: Usage = Usage()
    """Of all its tasks together; tokens of one that was cut off by an error are not known."""
    waited_seconds: float = 0.0
    """For its models."""
    held_seconds: float = 0.0
    """It had them."""


@runtime_checkable
class RequestGuard(Protocol):
    """Looks at requests. Supplied by ``llm_router_register_request_guards``."""

    name: str

    async def before(self, request: GuardedRequest) -> None:
        """Return to let *request* pass; raise an error of the package to refuse it with that.

        Any other error, and taking too long, refuses it too: a guard that fails lets nobody pass.
        """
        ...

    async def after(self, request: GuardedRequest, outcome: RequestOutcome) -> None:
        """Take note of what became of *request*: called exactly once if ``before`` returned."""
        ...
