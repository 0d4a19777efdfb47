"""Who makes way when room is lacking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from llm_router_mw.types import InstanceKey, Step


class Candidate(Struct, frozen=True, gc=False, kw_only=True):
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


class Shortfall(Struct, frozen=True, gc=False, kw_only=True):
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
        """Return *candidates*, of which there are several, the best victim first.

        As many of them are taken as *shortfall* needs; those that turn out not to be needed are
        spared.
        """
        ...
