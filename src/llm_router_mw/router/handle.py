"""What sleep handlers are given of an instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llm_router_mw.errors import SnapshotError
from llm_router_mw.protocols import EngineInstance, KeepsSequences
from llm_router_mw.types import InstanceKey, SequenceInfo, Snapshot, Spare


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a handle tells of the world around its instance."""

    models: Callable[[InstanceKey], Sequence[str]]
    hurried: Callable[[], bool]
    closing: Callable[[], bool]


class Handle:
    """An ``InstanceHandle``: one for each generation of an instance."""

    def __init__(
        self,
        key: InstanceKey,
        engine: EngineInstance,
        identity: str,
        surroundings: Surroundings,
        held: Callable[[], Mapping[str, int]],
    ) -> None:
        """Speak of *key*, which *engine* runs; *held* returns what it holds of each pool."""
        self.key = key
        self.identity = identity if isinstance(engine, KeepsSequences) else ""
        self._engine = engine if isinstance(engine, KeepsSequences) else None
        self._surroundings = surroundings
        self._held = held
        self.is_open = False
        """Whether its context may be asked for: nobody uses it, and it is not being freed."""

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self._surroundings.models(self.key))

    @property
    def hurried(self) -> bool:
        return self._surroundings.hurried()

    @property
    def closing(self) -> bool:
        return self._surroundings.closing()

    def verify(self, identity: str) -> None:
        """Take *identity* as what it is now; if that is another, nothing of it is of use."""
        if identity != self.identity:
            self.identity = ""

    async def sequences(self) -> Sequence[SequenceInfo]:
        engine = self._asked()
        return () if engine is None else await engine.sequences()

    async def save(self, sequence: int, path: str) -> Snapshot:
        engine = self._asked()
        if engine is None:
            raise SnapshotError(f"the engine of {self.key} saves no sequences")
        return await engine.save(sequence, path)

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare] = ()) -> None:
        if self._engine is not None:
            self._engine.offer(snapshots, spares)

    def withdraw(self, paths: Sequence[str]) -> None:
        if self._engine is not None:
            self._engine.withdraw(paths)

    def memory(self) -> Mapping[str, int]:
        return dict(self._held())

    def _asked(self) -> KeepsSequences | None:
        if not self.is_open:
            raise SnapshotError(f"it is too late to save anything of {self.key}")
        return self._engine
