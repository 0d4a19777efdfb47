"""What there is of memory, and what a load needs of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from llm_router_mw.types import Device, MeasuredMemory, MemoryEstimate, Model, Placement


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
class PreparingEstimator(Estimator, Protocol):
    """An estimator that must find something out first, which takes time and memory.

    Its ``estimate`` tells what has been prepared. The option ``dry_runs`` says for which models
    that is done. All but ``cancel`` are called off the event loop; ``prepare`` once at a time.
    """

    def is_wanted(self, model: Model) -> bool:
        """Whether *model* is one of those of which others know too little."""
        ...

    def is_prepared(self, model: Model, placement: Placement, devices: Sequence[Device]) -> bool:
        """Whether there is nothing to find out about *model* in *placement*."""
        ...

    def needs(self, placement: Placement, devices: Sequence[Device]) -> Mapping[str, int]:
        """Return by pool what memory is taken while that is found out."""
        ...

    def prepare(self, model: Model, placement: Placement, devices: Sequence[Device]) -> None:
        """Find it out."""
        ...

    def cancel(self) -> None:
        """Let a ``prepare`` that runs in another thread return at once."""
        ...


class MemoryAccount(Protocol):
    """Where a holder says what it has. To be used on the router's loop only."""

    def hold(self, bytes_by_pool: Mapping[str, int]) -> None:
        """Say what is held now of each memory pool; replaces what was said before."""
        ...

    def room(self, pool: str) -> int:
        """Return how many bytes of *pool* nobody has: who takes more, takes it from models."""
        ...


@runtime_checkable
class MemoryHolder(Protocol):
    """Something that holds memory which is no instance's, and gives it back when models need it.

    Any object that a plugin supplies may be one: a sleep handler that keeps conversations, an
    engine that keeps a process at hand.
    """

    name: str

    def use_account(self, account: MemoryAccount) -> None:
        """Take the account; called once when the router starts, before anything is loaded."""
        ...

    async def shed(self, pool: str, n_bytes: int) -> None:
        """Free so much of *pool*, or all there is, and ``hold`` what is left.

        A load that needs it begins when this returns.
        """
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
