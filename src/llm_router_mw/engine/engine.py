"""The engine of one instance: it loads a model, takes tasks, gives deltas step by step, sleeps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from llm_router_mw.engine.aside import Aside, is_heavy
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.embedding import EmbeddingLoop
from llm_router_mw.engine.generating import GenerationLoop
from llm_router_mw.engine.measure import measure
from llm_router_mw.engine.model import LoadedModel, LoadProgress, Rewind
from llm_router_mw.engine.native import llama, log
from llm_router_mw.engine.offers import Offers
from llm_router_mw.engine.outlet import Outlet, Sink
from llm_router_mw.engine.prompt import PromptReader
from llm_router_mw.engine.snapshots import Snapshots
from llm_router_mw.engine.weights import Weights
from llm_router_mw.errors import (
    LLMRouterError,
    ModelLoadError,
    ModelUnloadedError,
    WireError,
)
from llm_router_mw.protocols import ChatFormat
from llm_router_mw.types import (
    Delta,
    FailureDelta,
    FinishDelta,
    LoadOptions,
    ModelInfo,
    Placement,
    SleepLevel,
    Task,
    Usage,
)
from llm_router_mw.wire import SnapshotNews

logger = logging.getLogger("llm_router_mw.engine")

Output = Callable[[list[tuple[int, Delta]]], None]
"""Takes everything that one step gave: pairs of request id and delta."""


class _Loop(Protocol):
    """What works on the tasks of an instance. A prepared request is its own affair."""

    @property
    def snapshots(self) -> Snapshots | None: ...

    def prepare(self, task: Task) -> Any: ...

    def join(self, prepared: Any, outlet: Outlet) -> None: ...

    def drop(self, prepared: Any) -> None: ...

    def cancel(self, outlet: Outlet) -> FinishDelta: ...

    def step(self) -> bool: ...

    def close(self) -> None: ...


class _Order(NamedTuple):
    """What is loaded, and where: kept as it was, for each time that the model wakes."""

    weights: Weights
    options: LoadOptions
    chat_formats: Mapping[str, str]
    placement: Placement | None


class Engine:
    """Holds one model and its shared context. Not thread-safe: one thread makes all calls.

    Requests are known by ids that the caller chooses. Nothing happens between calls: whoever owns
    the engine calls :meth:`step` until it returns False, and again after any other call.
    """

    def __init__(
        self,
        output: Output,
        aside: Aside | None = None,
        *,
        tell: Callable[[SnapshotNews], None] = lambda news: None,
        helper: Aside | None = None,
    ) -> None:
        """Give deltas to *output*; prepare large tasks *aside*, or here if that is None.

        Who makes *aside* sees that :meth:`prepared` gets what comes of it, in the engine's thread;
        and what the jobs of *helper* return is to be called there. *tell* hears what becomes of
        saved conversations.
        """
        self._output = output
        self._aside = aside
        self._helper = helper
        self.offers = Offers(tell)
        """Files beside the context; they outlast sleep."""
        self._preparing: set[int] = set()
        self._sink: Sink = []
        self._outlets: dict[int, Outlet] = {}
        self._model: LoadedModel | None = None
        self._context: Context | None = None
        self._loop: _Loop | None = None
        self._order: _Order | None = None
        self._retired = False
        """Whether requests are turned away, because the model sleeps or is about to."""

    def load(
        self,
        path: str,
        options: LoadOptions,
        chat_formats: Mapping[str, str],
        progress: LoadProgress = lambda fraction: True,
        placement: Placement | None = None,
        identity: str = "",
    ) -> ModelInfo:
        """Load the model in *path*; *chat_formats* maps names to dotted names.

        What is saved of conversations is marked with *identity*; if it is empty nothing is.

        Raises:
            ModelFileError: the file is missing or cannot be read.
            ModelLoadError: it cannot be loaded as asked.
            LoadAbortedError: *progress* returned False.
        """
        log.install()
        llama.llama_backend_init()
        weights = Weights(path, options, placement)
        self._order = _Order(weights, options, chat_formats, placement)
        self.offers.identity = identity
        return self._bring_up(self._order, progress, warm_up=True)

    def retire(self) -> None:
        """Take no more requests, until :meth:`wake`; those that come are asked to come again.

        Raises:
            WireError: requests are under way.
        """
        self._emit()
        if self.busy:
            raise WireError(
                f"the model cannot sleep while {len(self._outlets)} requests are under way"
            )
        self._retired = True

    def sleep(self, level: SleepLevel) -> None:
        """Free the context, or the weights too. Needs :meth:`retire`, and nothing preparing."""
        self._free(level)
        if self._order is not None and level == "full":
            self._order.weights.keep_vocab()

    def wake(self, progress: LoadProgress = lambda fraction: True) -> ModelInfo:
        """Load again what was loaded at first, as at first, but without a warm-up.

        Raises:
            WireError: it is not asleep.
            LLMRouterError: as :meth:`load`; it is then asleep at level ``full``.
        """
        if self._order is None or self._loop is not None:
            raise WireError("a model that is not asleep was told to wake")
        return self._bring_up(self._order, progress, warm_up=False)

    def _bring_up(self, order: _Order, progress: LoadProgress, *, warm_up: bool) -> ModelInfo:
        """Load what is not there; if that fails, nothing stays."""
        try:
            return self._start(order, progress, warm_up=warm_up)
        except MemoryError as error:
            self._free("full")
            raise ModelLoadError(
                "there was not enough memory to load the model", out_of_memory=True
            ) from error
        except BaseException:
            self._free("full")
            raise

    def _start(self, order: _Order, progress: LoadProgress, *, warm_up: bool) -> ModelInfo:
        started_at = perf_counter()
        weights, options, chat_formats, placement = order
        if self._model is None:
            self._model = weights.load(progress)
        model = self._model
        context = self._context = Context(model, options, placement)
        if not options.pooling and not context.generates:
            raise ModelLoadError(
                "this model cannot generate text, only embeddings; set its load option pooling, "
                "for example to 'mean'"
            )
        self._loop = self._make_loop(model, context, options, chat_formats)
        if warm_up:
            context.warm_up(model.vocab.bos or 0)
        log.clear()
        self._retired = False
        return ModelInfo(
            n_ctx=context.n_ctx,
            n_ctx_train=model.n_ctx_train,
            n_vocab=model.vocab.size,
            n_embd=model.n_embd,
            n_params=model.n_params,
            size_bytes=model.size_bytes,
            n_parallel=options.n_parallel,
            load_seconds=perf_counter() - started_at,
            description=model.description,
            memory=measure(model, context, options),
        )

    def _make_loop(
        self,
        model: LoadedModel,
        context: Context,
        options: LoadOptions,
        chat_formats: Mapping[str, str],
    ) -> _Loop:
        if options.pooling:
            return EmbeddingLoop(context, model, options.pooling)
        chat_format = _make_chat_format(model, options, chat_formats)
        marks = model.rewind is not Rewind.ANYWHERE
        prompts = PromptReader(model.vocab, chat_format, context.n_ctx, marks=marks)
        return GenerationLoop(context, model.vocab, prompts, options, self.offers, self._helper)

    @property
    def snapshots(self) -> Snapshots | None:
        """What saves and restores conversations; None where there are none, or it sleeps."""
        return self._loop.snapshots if self._loop is not None else None

    @property
    def n_rows(self) -> int:
        """Rows of the last batch that was computed."""
        return self._context.n_rows if self._context is not None else 0

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return bool(self._outlets)

    @property
    def preparing(self) -> bool:
        """Whether something is prepared aside, be it for requests that are over."""
        return bool(self._preparing)

    def submit(self, request_id: int, task: Task, credit: int) -> None:
        """Take *task* on; it may give *credit* deltas before more credit comes.

        Raises:
            WireError: a request of that id is under way.
        """
        if request_id in self._outlets:
            raise WireError(f"request {request_id} is already under way")
        outlet = self._outlets[request_id] = Outlet(request_id, credit, self._sink)
        if self._retired:
            outlet.end(FailureDelta(_asleep().to_failure()))
            outlet.flush()
        elif self._aside is not None and is_heavy(task):
            self._preparing.add(request_id)
            self._aside.put(request_id, partial(self._prepare, task))
        else:
            self.prepared(request_id, self._prepare(task))

    def _prepare(self, task: Task) -> Any:
        """Return *task* as the loop wants it, or how it failed; in any thread."""
        try:
            return self._require_loop().prepare(task)
        except LLMRouterError as error:
            return FailureDelta(error.to_failure())
        # One request that the engine stumbles over must not take the others down.
        except Exception as error:
            logger.exception("a request failed")
            return FailureDelta(LLMRouterError(f"the request failed: {error}").to_failure())

    def prepared(self, request_id: int, result: Any) -> None:
        """Take what preparing a request has given; it may have been cancelled meanwhile."""
        self._preparing.discard(request_id)
        outlet = self._outlets.get(request_id)
        if isinstance(result, FailureDelta):
            if outlet is not None:
                outlet.end(result)
        elif outlet is None or outlet.ended:
            self._require_loop().drop(result)
        else:
            self._require_loop().join(result, outlet)
        if outlet is not None:
            outlet.flush()

    def credit(self, request_id: int, amount: int) -> None:
        """Let request *request_id* give *amount* more deltas; unknown ids are over already."""
        outlet = self._outlets.get(request_id)
        if outlet is not None:
            outlet.add_credit(amount)
            outlet.flush()

    def cancel(self, request_id: int) -> None:
        """End request *request_id* at the next step; unknown ids are over already."""
        outlet = self._outlets.get(request_id)
        if outlet is None:
            return
        if not outlet.ended:
            joined = request_id not in self._preparing
            if self._aside is not None and not joined and self._aside.drop(request_id):
                self._preparing.discard(request_id)
            cancelled = FinishDelta("cancelled", Usage())
            outlet.end(self._require_loop().cancel(outlet) if joined else cancelled)
        outlet.discard()
        outlet.flush()

    def overhear(self, cancelled: int | None) -> None:
        """Learn early, in any thread, that a request (None: all) is about to be cancelled.

        A step that works for nobody else is given up. The cancelling itself must follow.
        """
        context = self._context
        if context is not None:
            if cancelled is None:
                context.abort.leave_all()
            else:
                context.abort.leave(cancelled)

    def cancel_all(self) -> None:
        """End all requests, and give out what there is to say about it."""
        for request_id in tuple(self._outlets):
            self.cancel(request_id)
        self._emit()

    def step(self) -> bool:
        """Decode one batch and give its deltas out; return False if there was nothing to do."""
        try:
            return self._loop is not None and self._loop.step()
        finally:
            self._emit()

    def close(self) -> None:
        """Free everything, in the order in which it depends on each other. Idempotent."""
        self.end_threads()
        self._free("full")
        if self._order is not None:
            self._order.weights.forget()

    def end_threads(self) -> None:
        """Let the threads beside this one finish what they have begun, and end. Idempotent."""
        for thread in (self._aside, self._helper):
            if thread is not None:
                thread.close()
        self._aside = self._helper = None

    def _free(self, level: SleepLevel) -> None:
        if self._loop is not None:
            self._loop.close()
        if self._context is not None:
            self._context.close()
        self._loop = self._context = None
        if self._model is not None and level == "full":
            self._model.close()
            self._model = None

    def _require_loop(self) -> _Loop:
        if self._loop is None:
            raise WireError("a request came before a model was loaded")
        return self._loop

    def _emit(self) -> None:
        if not self._sink:
            return
        deltas = self._sink.copy()
        self._sink.clear()
        for request_id, delta in deltas:
            if isinstance(delta, (FinishDelta, FailureDelta)):
                del self._outlets[request_id]
        self._output(deltas)


def _asleep() -> LLMRouterError:
    return ModelUnloadedError("the model has fallen asleep; ask again to wake it")


def _make_chat_format(
    model: LoadedModel, options: LoadOptions, chat_formats: Mapping[str, str]
) -> ChatFormat | LLMRouterError:
    name = options.chat_format
    dotted = chat_formats.get(name)
    if dotted is None:
        known = ", ".join(sorted(chat_formats)) or "none"
        raise ModelLoadError(f"there is no chat format {name!r}; registered are: {known}")
    module, _, attribute = dotted.partition(":")
    try:
        factory: type[ChatFormat] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelLoadError(f"the chat format {name!r} cannot be imported: {error}") from error
    template = options.chat_template or model.chat_template
    try:
        return factory(template, model.vocab.bos_text, model.vocab.eos_text)
    except LLMRouterError as error:
        logger.warning("chat requests will be refused: %s", error)
        return error
