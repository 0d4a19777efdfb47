"""An engine whose answers hand themselves on, as those of worker processes do."""

from __future__ import annotations

from collections.abc import Callable

from llm_router_mw.router.stream import RequestStream
from llm_router_mw.testing.engine import FakeEngine, FakeInstance
from llm_router_mw.types import ContentDelta, Task
from llm_router_mw.wire import Cancel, Credit


class DirectInstance(FakeInstance):
    """A pretended worker; the test says what its answers consist of."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
        self.answers: list[RequestStream] = []
        self.sent: list[Credit | Cancel] = []
        """What answers have sent to the worker; their numbers are their places in the list."""
        self.full: list[RequestStream] = []
        """Answers that had no credit left."""

    def submit(  # type: ignore[override]  # another kind of stream
        self, task: Task, on_finished: Callable[[], None]
    ) -> RequestStream:
        answer = RequestStream(len(self.answers), self.sent.append, on_finished, self.full.append)
        if self.failure is not None:
            answer.fail(self.failure)
        self.answers.append(answer)
        return answer

    def step(self, *texts: str) -> None:
        """Give each answer one of *texts*, as one step of the worker does."""
        for answer, text in zip(self.answers, texts, strict=True):
            answer.feed(ContentDelta(text))


class DirectEngine(FakeEngine):
    """Makes such workers."""

    async def create(self) -> DirectInstance:
        instance = DirectInstance(self)
        self.instances.append(instance)
        return instance

    def direct(self, name: str) -> DirectInstance:
        """Return the newest worker of the model *name*."""
        instance = self.latest(name)
        assert isinstance(instance, DirectInstance)
        return instance
