"""What the scheduler remembers of one instance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm_router_mw.memory.ledger import Amounts
from llm_router_mw.protocols import HEAT_HALF_LIFE_SECONDS, Candidate
from llm_router_mw.scheduler.option import Choices
from llm_router_mw.scheduler.states import DOWNLOADING, LOADED, ON_ITS_WAY, UNLOADED, WITH_WORKER
from llm_router_mw.scheduler.terms import NOTHING_SAID, OFF, Terms, shared
from llm_router_mw.types import Failure, InstanceKey, InstanceState, Price, SleepLevel, Step

_COOL_DOWN_SECONDS = 10.0
_LONGEST_COOL_DOWN_SECONDS = 300.0
_FADING = math.log(2) / HEAT_HALF_LIFE_SECONDS


@dataclass(slots=True, eq=False)
class Instance:
    """One instance, from the first time that somebody asks for it."""

    key: InstanceKey
    state: InstanceState = UNLOADED
    generation: int = 0
    """Counts starts, so that news of an earlier worker is told from news of this one."""
    models: set[str] = field(default_factory=set)
    """Names under which it is in use."""
    terms: Terms = NOTHING_SAID
    leases: set[int] = field(default_factory=set)

    prices: tuple[Price, ...] | None = None
    """None as long as nobody has said them."""
    price_asked: bool = False
    is_missing: bool = False
    """Whether its files have yet to be downloaded, as far as is known."""
    price: Price | None = None
    """Where it is now; None where its memory is unknown."""
    surcharge: float = 1.0
    """What its prices are multiplied with since a load found that they were too low."""
    was_retried: bool = False
    """Whether the last load was a second try, with more room."""
    waits_for: set[InstanceKey] = field(default_factory=set)
    """What must be gone before it is tried again."""
    not_before_seconds: float = 0.0
    """When it may be tried again after others took its room; until then its place is kept."""

    level: SleepLevel | None = None
    """How deep it sleeps, or is to sleep."""
    held_asleep: Amounts = field(default_factory=dict)
    """What it was charged with when it last slept."""
    next_step: Step = "stop"
    """What follows when it has drained."""
    drains_for: int | None = None
    """The ticket for which it drains; None if somebody asked for it by hand."""
    replace: bool = False
    """Whether it stops only to come back in a better place."""
    on_guess: bool = False
    """Whether it was loaded on a guess, and nobody has used it yet."""

    loaded_at_seconds: float = 0.0
    last_used_seconds: float = 0.0
    load_seconds: float = 0.0
    uses: int = 0
    heat: float = 0.0
    keep_until: dict[str, float] = field(default_factory=dict)
    """Model → how long the last request for it wants it kept."""

    shown: Candidate | None = None
    """How eviction policies see it; None once that is no longer true."""
    choices: Choices | None = None
    """The ways to have it awake, as they were last worked out."""

    failure: Failure | None = None
    failures: int = 0
    retry_at_seconds: float = 0.0

    @property
    def is_idle(self) -> bool:
        return self.state is LOADED and not self.leases

    @property
    def is_busy(self) -> bool:
        return self.state is LOADED and bool(self.leases)

    @property
    def is_coming(self) -> bool:
        """Whether it cannot be loaded before its files are here."""
        return self.is_missing or self.state is DOWNLOADING

    @property
    def has_worker(self) -> bool:
        return self.state in WITH_WORKER

    @property
    def idle_deadline_seconds(self) -> float:
        """When it falls asleep or ends if nobody uses it: infinite if it never does."""
        return min(self.sleep_at_seconds, self.unload_at_seconds)

    @property
    def sleep_at_seconds(self) -> float:
        if self.state is not LOADED or self.keep_until:
            return math.inf
        return _after(self.last_used_seconds, self.terms.sleep_idle_seconds)

    @property
    def unload_at_seconds(self) -> float:
        if self.keep_until:
            return max(self.keep_until.values())
        return _after(self.last_used_seconds, self.terms.unload_idle_seconds)

    def used(self, now: float) -> None:
        """Count a use."""
        self.heat = self.heat * math.exp(-_FADING * (now - self.last_used_seconds)) + 1.0
        self.last_used_seconds = now
        self.uses += 1
        self.on_guess = False

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

    def agree(self, terms: Mapping[str, Terms]) -> None:
        """Take what holds now for all models that use it."""
        self.terms = shared(terms[model] for model in sorted(self.models) if model in terms)


def are_on_their_way(instances: Iterable[Instance]) -> bool:
    """Whether nothing has to be started for a request for *instances*."""
    for each in instances:  # noqa: SIM110 (a generator would take five times as long)
        if each.state not in ON_ITS_WAY:
            return False
    return True


def _after(since: float, limit: float) -> float:
    return math.inf if limit == OFF or limit < 0 else since + limit
