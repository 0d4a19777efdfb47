"""The requests whose spans are open, for those who want to know on whose behalf something is."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct
from opentelemetry.trace import Span

from llm_router_mw.protocols import GuardedRequest


class OpenRequest(Struct):
    """A request that is not over."""

    request: GuardedRequest
    span: Span
    """All of it."""
    queue: Span
    """Its way to its models."""
    began_ns: int
    """On the system's clock."""
    is_explained: bool = False
    """Whether it is known why it waits."""


class Waiting:
    """Requests that are not over, the oldest first.

    While a model loads, or others make room for it, all of its requests wait.
    """

    def __init__(self) -> None:
        self._open: dict[int, OpenRequest] = {}

    def add(self, opened: OpenRequest) -> None:
        """Take up a request."""
        self._open[opened.request.id] = opened

    def remove(self, request_id: int) -> OpenRequest:
        """Return the request, which is over."""
        return self._open.pop(request_id)

    def wanting(self, models: Collection[str]) -> Iterator[OpenRequest]:
        """Yield the requests for one of *models*, the oldest first."""
        names = set(models)
        return (each for each in self._open.values() if not names.isdisjoint(each.request.models))
