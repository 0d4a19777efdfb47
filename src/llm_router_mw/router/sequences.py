"""What the router asks of a worker's conversations, and hears of the files they are saved in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from llm_router_mw.errors import LLMRouterError, SnapshotError, error_from
from llm_router_mw.router.order import AnswerT, Order
from llm_router_mw.types import SequenceInfo, Snapshot, Spare
from llm_router_mw.wire import (
    ListSequences,
    OfferSnapshots,
    SaveFailed,
    SaveSequence,
    Sequences,
    SequenceSaved,
    SnapshotKept,
    SnapshotNews,
    ToWorker,
    WithdrawSnapshots,
)

SequenceMessage = Sequences | SequenceSaved | SaveFailed | SnapshotNews


class WorkerSequences:
    """One worker's conversations. Nothing comes of it unless somebody reads the channel."""

    def __init__(self, send: Callable[[ToWorker], None], stall_seconds: float) -> None:
        """Write with *send*; give up on a worker that says nothing for *stall_seconds*."""
        self._send = send
        self._stall_seconds = stall_seconds
        self._error: LLMRouterError | None = None
        self._listener: Callable[[SnapshotNews], None] = lambda news: None
        self._lists: deque[Order[Sequences]] = deque()
        """In the order in which they will be answered, those given up included."""
        self._saves: dict[str, Order[SequenceSaved]] = {}
        """By path; without those given up."""

    async def list(self) -> tuple[SequenceInfo, ...]:
        """Return what idle slots hold, longest idle first.

        Raises:
            LLMRouterError: the worker is gone or says nothing.
        """
        order: Order[Sequences] = Order(self._stall_seconds)
        self._lists.append(order)
        answer = await self._outcome(order, ListSequences())
        return tuple(answer.infos)

    async def save(self, sequence: int, path: str) -> Snapshot:
        """Have *sequence* saved in *path*.

        Raises:
            SnapshotError: it cannot be saved; there is no file.
            LLMRouterError: the worker is gone or says nothing.
        """
        order = self._saves[path] = Order(self._stall_seconds)
        try:
            answer = await self._outcome(order, SaveSequence(sequence, path))
        finally:
            self._saves.pop(path, None)
        return answer.snapshot

    async def _outcome(self, order: Order[AnswerT], message: ToWorker) -> AnswerT:
        if self._error is not None:
            raise self._error
        self._send(message)
        try:
            return await order.outcome()
        except TimeoutError:
            raise SnapshotError(
                f"the worker said nothing for {self._stall_seconds:g} s while it should save"
            ) from None

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare]) -> None:
        """Let the worker use *snapshots*, and write *spares*."""
        self._send(OfferSnapshots(list(snapshots), list(spares)))

    def withdraw(self, paths: Sequence[str]) -> None:
        """Let the worker use nothing of *paths* any more."""
        self._send(WithdrawSnapshots(list(paths)))

    def listen(self, listener: Callable[[SnapshotNews], None]) -> None:
        """Tell *listener*, and nobody else, what the worker tells of files."""
        self._listener = listener

    def heard(self) -> None:
        """The worker said something."""
        for order in self._orders:
            order.heard()

    def take(self, message: SequenceMessage) -> None:
        """Take what the worker said."""
        match message:
            case Sequences():
                if self._lists:
                    self._lists.popleft().succeed(message)
            case SequenceSaved(snapshot):
                order = self._saves.get(snapshot.path)
                if order is not None:
                    order.succeed(message)
                else:
                    # Nobody waited so long. The file is there, and has to be somebody's.
                    self._listener(SnapshotKept(snapshot))
            case SaveFailed(path, failure):
                if path in self._saves:
                    self._saves[path].fail(error_from(failure))
            case _:
                self._listener(message)

    def fail(self, error: LLMRouterError) -> None:
        """The worker is gone, as *error* says."""
        self._error = error
        for order in self._orders:
            order.fail(error)

    @property
    def _orders(self) -> tuple[Order[Sequences] | Order[SequenceSaved], ...]:
        return (*self._lists, *self._saves.values())
