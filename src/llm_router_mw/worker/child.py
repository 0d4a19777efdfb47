"""A worker's life: say hello, load one instance, run tasks and sleep until told to stop."""

from __future__ import annotations

import os
from time import monotonic, perf_counter

import llm_router_mw
from llm_router_mw import wire
from llm_router_mw.engine.aside import Aside
from llm_router_mw.engine.engine import Engine
from llm_router_mw.engine.model import LoadAbortedError
from llm_router_mw.engine.remote import register_servers
from llm_router_mw.errors import LLMRouterError, SnapshotError, WireError
from llm_router_mw.types import SequenceInfo, SleepLevel
from llm_router_mw.worker.channel import Channel
from llm_router_mw.worker.inbox import Inbox, Message, Prepared, Then
from llm_router_mw.worker.memory import give_back, private_bytes
from llm_router_mw.worker.visible import visibility

_PROGRESS_SECONDS = 0.05
"""Between two reports of a load."""
_ALIVE_SECONDS = 1.0
"""Between two signs of life, while there are requests."""


class Child:
    """Holds the engine, and speaks for it on the channel. Its thread is the engine's."""

    def __init__(self, channel: Channel, inbox: Inbox) -> None:
        self._channel = channel
        self._inbox = inbox
        self._engine = Engine(
            lambda deltas: self._send(wire.Step(deltas)),
            Aside(lambda request_id, result: inbox.put(Prepared(request_id, result))),
            tell=self._send,
            helper=Aside(lambda job, then: inbox.put(Then(then))),
        )
        self._reported_at = 0.0
        self._sent_at = 0.0
        self._falling_asleep: SleepLevel | None = None
        inbox.tell(self._overhear)

    def run(self) -> int:
        """Live, and return the exit code: 0 after a stop, 1 after a failure.

        What it holds is left to the end of the process, which must follow.
        """
        try:
            if self._prepare():
                self._serve()
        finally:
            self._engine.end_threads()
        return 0 if self._inbox.stop_requested.is_set() else 1

    def _prepare(self) -> bool:
        """Become an instance; return False if that was called off, or failed and was reported."""
        try:
            hello = self._inbox.wait()
            if isinstance(hello, wire.Stop):
                return False
            self._shake_hands(hello)
            load = self._inbox.wait()
            if isinstance(load, wire.Stop):
                return False
            self._load(load)
        except LoadAbortedError:
            return False
        except LLMRouterError as error:
            self._send(wire.LoadFailed(error.to_failure()))
            return False
        return True

    def _send(self, message: wire.ToRouter) -> None:
        self._sent_at = monotonic()
        self._channel.send(message)

    def _shake_hands(self, hello: Message) -> None:
        if not isinstance(hello, wire.Hello):
            raise WireError(f"expected hello first, not {type(hello).__name__}")
        version = llm_router_mw.__version__
        if hello.protocol != wire.PROTOCOL:
            raise WireError(
                f"the router speaks protocol {hello.protocol} (version {hello.version}), the "
                f"worker {wire.PROTOCOL} (version {version}); run both from one installation"
            )
        self._send(wire.Ready(wire.PROTOCOL, version, os.getpid()))

    def _load(self, load: Message) -> None:
        if not isinstance(load, wire.Load):
            raise WireError(f"expected load, not {type(load).__name__}")
        # Before anything native looks at its devices.
        os.environ.update(visibility(load.placement) | load.environ)
        register_servers(os.environ)
        self._report(0.0)
        info = self._engine.load(
            load.path,
            load.options,
            load.chat_formats,
            self._on_progress,
            load.placement,
            load.identity,
        )
        self._report(1.0)
        self._send(wire.Loaded(info))

    def _on_progress(self, fraction: float) -> bool:
        if fraction < 1 and monotonic() - self._reported_at >= _PROGRESS_SECONDS:
            self._report(fraction)
        return not self._inbox.stop_requested.is_set()

    def _report(self, fraction: float) -> None:
        self._reported_at = monotonic()
        self._send(wire.Progress(fraction))

    def _serve(self) -> None:
        """Take messages and decode in turn; rest only when there is nothing to decode."""
        worked = False
        while True:
            message = self._inbox.poll() if worked else self._next()
            while message is not None:
                if isinstance(message, wire.Stop):
                    self._engine.cancel_all()
                    return
                self._handle(message)
                message = self._inbox.poll()
            if self._falling_asleep is not None and not self._engine.preparing:
                self._sleep(self._falling_asleep)
            worked = self._engine.step()
            if self._engine.busy and monotonic() - self._sent_at >= _ALIVE_SECONDS:
                self._send(wire.Alive())

    def _next(self) -> Message | None:
        """Return the next message; None when it is time for a sign of life instead."""
        if self._engine.busy:
            return self._inbox.wait_at_most(_ALIVE_SECONDS)
        return self._inbox.wait()

    def _overhear(self, message: wire.ToWorker) -> None:
        """Let a step end early that nobody waits for; runs in the reader's thread."""
        if isinstance(message, wire.Cancel):
            self._engine.overhear(message.id)
        elif isinstance(message, wire.Stop):
            self._engine.overhear(None)

    def _handle(self, message: Message) -> None:
        match message:
            case wire.Submit(request_id, task, credit):
                self._engine.submit(request_id, task, credit)
            case wire.Credit(request_id, amount):
                self._engine.credit(request_id, amount)
            case wire.Cancel(request_id):
                self._engine.cancel(request_id)
            case Prepared(request_id, result):
                self._engine.prepared(request_id, result)
            case Then(call):
                call()
            case wire.ListSequences():
                self._send(wire.Sequences(self._sequences()))
            case wire.SaveSequence(sequence, path):
                self._save(sequence, path)
            case wire.OfferSnapshots(snapshots, spares):
                self._engine.offers.offer(snapshots, spares)
            case wire.WithdrawSnapshots(paths):
                self._engine.offers.withdraw(paths)
            case wire.Sleep(level):
                self._fall_asleep(level)
            case wire.Wake():
                self._wake()
            case _:
                raise WireError(f"a loaded worker does not expect {type(message).__name__}")

    def _sequences(self) -> list[SequenceInfo]:
        snapshots = self._engine.snapshots
        return snapshots.infos() if snapshots is not None else []

    def _save(self, sequence: int, path: str) -> None:
        snapshots = self._engine.snapshots
        try:
            if snapshots is None:
                raise SnapshotError(
                    "a model that sleeps, or keeps no conversations, was to save one"
                )
            saved = snapshots.save(sequence, path)
        except SnapshotError as error:
            self._send(wire.SaveFailed(path, error.to_failure()))
        else:
            self._send(wire.SequenceSaved(saved))

    def _fall_asleep(self, level: SleepLevel) -> None:
        try:
            self._engine.retire()
        except WireError as error:
            self._send(wire.SleepFailed(error.to_failure()))
        else:
            # Something that was cancelled may still be prepared aside, with what would be freed.
            self._falling_asleep = level

    def _sleep(self, level: SleepLevel) -> None:
        began, before = perf_counter(), private_bytes()
        self._engine.sleep(level)
        give_back()
        self._falling_asleep = None
        left = private_bytes()
        freed = None if before is None or left is None else before - left
        self._send(wire.Slept(perf_counter() - began, left, freed))

    def _wake(self) -> None:
        self._report(0.0)
        try:
            info = self._engine.wake(self._on_progress)
        except LoadAbortedError:
            return  # the order to stop follows
        except LLMRouterError as error:
            give_back()
            self._send(wire.LoadFailed(error.to_failure()))
        else:
            self._report(1.0)
            self._send(wire.Loaded(info))
