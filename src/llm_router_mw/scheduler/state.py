"""What the scheduler remembers: instances, waiting requests, leases."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_router_mw.protocols import Candidate
from llm_router_mw.types import Failure, InstanceKey, InstanceState

OCCUPYING = frozenset(
    {
        InstanceState.LOADING,
        InstanceState.LOADED,
        InstanceState.DRAINING,
        InstanceState.STOPPING,
    }
)
"""States in which an instance takes one of ``models_max`` slots: a victim keeps its slot until
its worker has exited, so a new one never overlaps the old one's memory."""

_COOL_DOWN_SECONDS = 10.0
_LONGEST_COOL_DOWN_SECONDS = 300.0


@dataclass(slots=True)
class Instance:
    """One instance, from the first time that somebody asks for it."""

    key: InstanceKey
    state: InstanceState = InstanceState.UNLOADED
    generation: int = 0
    """Counts starts, so that news of an earlier worker is told from news of this one."""
    models: set[str] = field(default_factory=set)
    """Names under which it is in use."""
    leases: set[int] = field(default_factory=set)
    drain_for: int | None = None
    """The waiting request for which it drains; None if it was unloaded by hand."""
    last_used_seconds: float = 0.0
    loaded_at_seconds: float = 0.0
    load_seconds: float = 0.0
    uses: int = 0
    failure: Failure | None = None
    failures: int = 0
    retry_at_seconds: float = 0.0

    @property
    def occupies_slot(self) -> bool:
        return self.state in OCCUPYING

    @property
    def is_idle(self) -> bool:
        return self.state is InstanceState.LOADED and not self.leases

    @property
    def is_busy(self) -> bool:
        return self.state is InstanceState.LOADED and bool(self.leases)

    @property
    def is_leaving(self) -> bool:
        return self.state in (InstanceState.DRAINING, InstanceState.STOPPING)

    def failed(self, failure: Failure, now: float) -> None:
        """Count a failed load; the pause before the next try doubles each time."""
        self.failure = failure
        self.failures += 1
        pause = _COOL_DOWN_SECONDS * 2.0 ** min(self.failures - 1, 10)
        self.retry_at_seconds = now + min(pause, _LONGEST_COOL_DOWN_SECONDS)

    def forget_failure(self) -> None:
        self.failure = None
        self.failures = 0
        self.retry_at_seconds = 0.0

    def candidate(self) -> Candidate:
        """Return the frozen picture that an eviction policy sees."""
        return Candidate(
            instance=self.key,
            models=tuple(sorted(self.models)),
            last_used_seconds=self.last_used_seconds,
            loaded_at_seconds=self.loaded_at_seconds,
            load_seconds=self.load_seconds,
            uses=self.uses,
        )


@dataclass(frozen=True, slots=True)
class Waiter:
    """A request in the queue."""

    id: int
    instances: tuple[InstanceKey, ...]
    models: tuple[str, ...]
    hold: bool
    since_seconds: float


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted right to use one instance."""

    id: int
    instance: InstanceKey
    expires_at_seconds: float
