"""Contracts between the floors, and the shapes of what plugins supply.

Doors and dialects depend on :class:`RouterContract`, not on a class: the router may live in this
loop, in another thread or, later, in another process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Protocol, overload, runtime_checkable

from msgspec import Struct

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.types import (
    Delta,
    Device,
    EmbeddingReply,
    InstanceKey,
    MeasuredMemory,
    MemoryEstimate,
    Model,
    ModelInfo,
    ModelView,
    Placement,
    QueuePlace,
    RouterEvent,
    RouterView,
    SleepLevel,
    Step,
    Task,
    TextReply,
)
from llm_router_mw.wire import Load

Clock = Callable[[], float]
"""Seconds on a clock that never goes back."""

OnQueued = Callable[[QueuePlace], None]
"""Is told where a waiting request stands."""


class DeltaStream(Protocol):
    """The answer to one task, as it comes. Iterate it once, to the end or until ``cancel``."""

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    async def __anext__(self) -> Delta:
        """Return the next content or embedding delta, or the finish; then stop.

        Raises:
            LLMRouterError: the request failed, in the worker or with it.
        """
        ...

    def cancel(self, error: LLMRouterError | None = None) -> None:
        """End the request at the engine's next step; harmless when it is over.

        With *error* the reader is told the reason: the stream ends with it at once.
        """
        ...


class LeaseContract(Protocol):
    """The right to use one instance: while it is held, the instance is not evicted."""

    @property
    def model(self) -> str:
        """Id of the leased model."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Facts about the loaded instance."""
        ...

    def stream(self, task: Task, *, release: bool = False) -> DeltaStream:
        """Start *task*; with *release* the lease ends as soon as the worker is done with it."""
        ...

    async def chat(self, messages: Sequence[dict[str, Any]], **parameters: Any) -> TextReply:
        """Answer a conversation. *parameters* are fields of ``ChatTask`` and ``Sampling``."""
        ...

    async def complete(self, prompt: str | Sequence[int], **parameters: Any) -> TextReply:
        """Continue *prompt*. *parameters* are fields of ``CompletionTask`` and ``Sampling``."""
        ...

    async def embed(self, inputs: str | Sequence[str]) -> EmbeddingReply:
        """Embed one text or several."""
        ...

    def release(self) -> None:
        """Give the instance back; running streams of the lease are cancelled. Idempotent."""
        ...


class RouterContract(Protocol):
    """What doors, dialects and app code may ask of a router."""

    @overload
    def acquire(
        self,
        model: str,
        /,
        *,
        priority: int = 0,
        keep_alive_seconds: float | None = None,
        timeout_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[LeaseContract]: ...
    @overload
    def acquire(
        self,
        model: str,
        second: str,
        /,
        *models: str,
        priority: int = 0,
        keep_alive_seconds: float | None = None,
        timeout_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[tuple[LeaseContract, ...]]: ...
    def acquire(
        self,
        model: str,
        /,
        *models: str,
        priority: int = 0,
        keep_alive_seconds: float | None = None,
        timeout_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[Any]:
        """Load or wait for the models and hold them; several names are taken all at once.

        Args:
            priority: added to the model's own; higher goes first in the queue.
            keep_alive_seconds: how long the models stay afterwards: 0 releases them, -1 keeps
                them, None is as configured. At most ``max_keep_alive_seconds``.
            timeout_seconds: how long to wait at most, within ``queue_timeout_seconds``.
        """
        ...

    async def lease(
        self,
        model: str,
        *,
        autoload: bool | None = None,
        priority: int = 0,
        keep_alive_seconds: float | None = None,
        timeout_seconds: float | None = None,
        on_queued: OnQueued | None = None,
    ) -> LeaseContract:
        """As ``acquire``, for callers that release by themselves.

        *on_queued* is called when the request begins to wait, and when its place has changed, at
        most about once a second. It is called on the router's loop, perhaps in another thread, and
        must return at once. A request that is served or refused at once never calls it.
        """
        ...

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states: a snapshot, at once."""
        ...

    def overview(self) -> RouterView:
        """The router as a whole: a snapshot, at once."""
        ...

    def tasks(self, model: str) -> tuple[Task, ...]:
        """What *model*'s instance works on: a snapshot, at once; wakes nothing.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        ...

    async def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        ...

    async def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """Unload *model*; a busy one drains first, or is cut off with *force*.

        Returns:
            False if it is still draining when the call returns.
        """
        ...

    async def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        """Put *model*'s instance to sleep; a busy one drains first. One not loaded stays as it is.

        Returns:
            False if it is still draining when the call returns.
        """
        ...

    async def wake(self, model: str, *, wait: bool = True) -> None:
        """Have *model* ready: one that sleeps wakes, one that is not loaded at all is loaded.

        Without *wait* return when that has been asked for.
        """
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[RouterEvent]]:
        """Subscribe to events; the first one is a snapshot of all models."""
        ...


class StartableRouter(RouterContract, Protocol):
    """A router that its holder starts and stops with ``async with``, in one and the same task."""

    @property
    def running(self) -> bool:
        """Whether it has been started and not yet been closed."""
        ...

    async def __aenter__(self) -> RouterContract: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...


class ExitReport(Struct, frozen=True, kw_only=True):
    """How a worker ended."""

    exit_code: int | None
    """As ``subprocess``: negative is the signal's number; None if it never started."""
    log_tail: str = ""
    """The last lines that it wrote."""
    offence: str = ""
    """Why it was ended by us (``was stuck``); empty if it ended by itself or as it was told."""


class SleepReport(Struct, frozen=True, kw_only=True):
    """What falling asleep has brought."""

    seconds: float
    """How long it took."""
    private_bytes: int | None = None
    """Memory of the host that the process still holds and shares with no file: anonymous and
    shared memory. None if unknown."""
    freed_bytes: int | None = None
    """By how much that is less than before; None if unknown."""


@runtime_checkable
class EngineInstance(Protocol):
    """One running instance, as the conductor drives it."""

    @property
    def pid(self) -> int | None: ...

    async def load(self, order: Load, progress: Callable[[float], None]) -> ModelInfo:
        """Load what *order* says; *progress* is told fractions from 0 to 1.

        Raises:
            ModelLoadError: it cannot be loaded; ``out_of_memory`` says whether for lack of that.
            LLMRouterError: something else is wrong, or its process ended.
        """
        ...

    async def sleep(self, level: SleepLevel) -> SleepReport:
        """Free the context, or the weights too; the process stays. All requests must be over.

        From ``context`` it may go on to ``full``. A task that is submitted afterwards, but before
        ``wake``, fails with an error that asks to try again.

        Raises:
            LLMRouterError: requests are under way, nothing is loaded, or the process ended.
        """
        ...

    async def wake(self, progress: Callable[[float], None]) -> ModelInfo:
        """Load again what the first order said, where it said, without a warm-up.

        Raises:
            LLMRouterError: as ``load``. The instance then holds as little as after a ``full``
                sleep, and can be woken again or stopped.
        """
        ...

    def submit(self, task: Task, on_finished: Callable[[], None]) -> DeltaStream:
        """Start *task*; *on_finished* is called once when the engine no longer works on it."""
        ...

    async def stop(self, timeout_seconds: float) -> None:
        """Ask politely, then terminate, then kill; returns when it is gone."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    async def wait(self) -> ExitReport:
        """Return when the instance is gone and its memory with it."""
        ...


@runtime_checkable
class EngineFactory(Protocol):
    """Makes instances. Supplied by ``llm_router_register_engines``."""

    name: str

    def running(self) -> AbstractAsyncContextManager[None]:
        """Hold what the factory shares between instances (a spare worker) while the router runs."""
        ...

    async def create(self) -> EngineInstance:
        """Return an instance that is ready to load."""
        ...


class Candidate(Struct, frozen=True, kw_only=True):
    """One step down for an idle instance: what it frees, and what is known of its use."""

    instance: InstanceKey
    step: Step
    models: tuple[str, ...]
    freed: Mapping[str, int]
    """By resource: bytes of a memory pool, or one of ``slots``."""
    last_used_seconds: float
    loaded_at_seconds: float
    load_seconds: float
    """Of the last load: what it costs to have it back."""
    uses: int
    """Leases since the router began, loads by others' eviction notwithstanding."""
    heat: float = 0.0
    """Leases, each fading with time (halved every ``HEAT_HALF_LIFE_SECONDS``), as of the last
    use."""

    def bytes_freed(self, resource: str) -> int:
        """Return what this step frees of *resource*."""
        return self.freed.get(resource, 0)


HEAT_HALF_LIFE_SECONDS: Final = 600.0


class Shortfall(Struct, frozen=True, kw_only=True):
    """What is lacking before something can be loaded."""

    device: str
    """The resource of which most is lacking: a memory pool, or ``slots``."""
    bytes: int
    """How much of it."""
    lacking: Mapping[str, int]
    """All resources that are short."""


@runtime_checkable
class EvictionPolicy(Protocol):
    """Ranks victims. Supplied by ``llm_router_register_eviction_policies``.

    Pure and quick: it runs inside the scheduler's step.
    """

    name: str

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        """Return *candidates*, the best victim first.

        As many of them are taken as *shortfall* needs; those that turn out not to be needed are
        spared.
        """
        ...


@runtime_checkable
class Estimator(Protocol):
    """Says what a load needs. Supplied by ``llm_router_register_estimators``."""

    name: str

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate | None:
        """Return what *model* needs where *placement* puts it; None if this one cannot tell.

        Called off the event loop. May raise ``ModelFileError`` for a file that cannot be used.
        """
        ...


@runtime_checkable
class LearningEstimator(Estimator, Protocol):
    """An estimator that remembers what loads really took."""

    def record(
        self,
        model: Model,
        placement: Placement,
        memory: MeasuredMemory,
        devices: Sequence[Device],
        used_bytes: Mapping[str, int],
    ) -> None:
        """Remember a load of *model*: *memory* by the worker's own account, *used_bytes* by device
        as probes saw its process. Called off the event loop."""
        ...


@runtime_checkable
class DeviceProbe(Protocol):
    """Finds memory. Supplied by ``llm_router_register_device_probes``."""

    name: str

    def inventory(self) -> Sequence[Device]:
        """Return the devices as they are now. Called off the event loop."""
        ...

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        """Return what the processes *pids* hold together, by device id; unknown ones left out."""
        ...


@runtime_checkable
class PlacementPolicy(Protocol):
    """Says where a model may go. Supplied by ``llm_router_register_placement_policies``."""

    name: str

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        """Return the placements that are possible, best first. Pure; called off the event loop."""
        ...


@runtime_checkable
class ModelSource(Protocol):
    """Finds models. Supplied by ``llm_router_register_model_sources``."""

    name: str

    def models(self) -> Sequence[Model]:
        """Return the models that exist now. May read directories; called off the event loop."""
        ...


@runtime_checkable
class Observer(Protocol):
    """Is told what happens. Supplied by ``llm_router_register_observers``."""

    name: str

    def on_event(self, event: RouterEvent) -> None:
        """Take one event; called on the router's loop, so it must return at once."""
        ...


class PreparedPrompt(Struct, frozen=True, kw_only=True):
    """What a chat format makes of a conversation."""

    prompt: str
    stops: tuple[str, ...] = ()
    grammar: str = ""
    triggers: tuple[str, ...] = ()
    turn_start: int = 0
    """Characters before the last user's message: where the next conversation may differ."""


class ChatParser(Protocol):
    """Turns the generated text of one answer into deltas."""

    def feed(self, text: str) -> Sequence[Delta]: ...

    def finish(self) -> Sequence[Delta]: ...


@runtime_checkable
class ChatFormat(Protocol):
    """Templates conversations and parses answers; made once per instance, in the worker.

    Named by ``llm_router_register_chat_formats``; constructed with the template's source and the
    texts of the beginning- and end-of-sequence tokens.
    """

    def __init__(self, template: str, bos: str, eos: str) -> None: ...

    def prepare(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        choice: str = "auto",
    ) -> PreparedPrompt:
        """Return the prompt.

        Raises:
            InvalidRequestError: the template cannot take these messages.
        """
        ...

    def parser(self) -> ChatParser: ...
