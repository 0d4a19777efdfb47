"""A lease: the right to use one instance, on the loop that owns the router."""

from __future__ import annotations

from collections.abc import Callable

from llm_router_mw.errors import LeaseExpiredError, LLMRouterError
from llm_router_mw.protocols import DeltaStream, EngineInstance
from llm_router_mw.router.verbs import LeaseVerbs
from llm_router_mw.types import InstanceKey, Model, ModelInfo, Task, Usage


class Lease(LeaseVerbs):
    """While it is held, the instance is not evicted. Made by ``Router.acquire``."""

    def __init__(
        self,
        model: Model,
        instance: EngineInstance,
        info: ModelInfo,
        on_released: Callable[[], None],
    ) -> None:
        self._model = model
        self._instance = instance
        self._info = info
        self._on_released = on_released
        self._running: dict[DeltaStream, Task] = {}
        self._ended: LLMRouterError | None = None
        self._usage = Usage()
        self._on_over: Callable[[Usage], None] | None = None

    @property
    def model(self) -> str:
        """Id of the leased model."""
        return self._model.id

    @property
    def info(self) -> ModelInfo:
        """Facts about the loaded instance."""
        return self._info

    @property
    def instance_key(self) -> InstanceKey:
        return self._model.instance_key

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What runs under the lease."""
        return tuple(self._running.values())

    @property
    def held(self) -> bool:
        return self._ended is None

    def when_over(self, call: Callable[[Usage], None]) -> None:
        """Call *call* once the lease has ended and no task runs under it, with what they used."""
        self._on_over = call

    def stream(self, task: Task, *, release: bool = False) -> DeltaStream:
        """Start *task*; with *release* the lease ends as soon as the worker is done with it.

        Raises:
            LeaseExpiredError: the lease has been given back, or was taken.
        """
        if self._ended is not None:
            raise self._ended

        stream: DeltaStream | None = None
        over = False  # the task may end before submit returns

        def finished() -> None:
            nonlocal over
            over = True
            if stream is not None:
                self._running.pop(stream, None)
                self._count(stream)
            if release:
                self.release()

        stream = self._instance.submit(task, finished)
        if over:
            self._count(stream)
        else:
            self._running[stream] = task
        return stream

    def release(self) -> None:
        """Give the instance back; running streams of the lease are cancelled. Idempotent."""
        self._end(LeaseExpiredError(f"the lease of {self.model!r} has been released"))

    def revoke(self, error: LLMRouterError) -> None:
        """End the lease from the router's side; its running streams end with *error*."""
        self._end(error, told=error)

    def _end(self, error: LLMRouterError, *, told: LLMRouterError | None = None) -> None:
        if self._ended is None:
            self._ended = error
            for stream in tuple(self._running):
                stream.cancel(told)
            self._on_released()
            self._tell_if_over()

    def _count(self, stream: DeltaStream) -> None:
        self._usage = self._usage + stream.usage
        self._tell_if_over()

    def _tell_if_over(self) -> None:
        if self._ended is not None and not self._running and self._on_over is not None:
            call, self._on_over = self._on_over, None
            call(self._usage)
