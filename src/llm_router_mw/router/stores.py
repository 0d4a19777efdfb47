"""All that keep conversations, as one: one that fails does not hide what the others keep."""

from __future__ import annotations

from collections.abc import Iterable

from llm_router_mw.errors import SnapshotError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import SnapshotStore
from llm_router_mw.types import Purged, StoredSnapshot


class Stores:
    """The snapshot stores of one router. For its loop only."""

    def __init__(self, stores: Iterable[SnapshotStore], faults: Faults) -> None:
        """What *stores* do wrong is told to *faults*."""
        self._stores = tuple(stores)
        self._faults = faults

    def snapshots(self) -> tuple[StoredSnapshot, ...]:
        """Return what all of them keep, one store after the other."""
        found: list[StoredSnapshot] = []
        for store in self._stores:
            try:
                found += store.snapshots()
            except Exception as error:
                self._faults.add("sleep handler", store.name, error)
        return tuple(found)

    async def purge(self, path: str | None) -> Purged:
        """Remove everything, or what is of the model's file *path*.

        Raises:
            SnapshotError: one of them could not; the others have.
        """
        snapshots = size_bytes = 0
        failed: list[str] = []
        for store in self._stores:
            try:
                purged = await store.purge(path)
            except Exception as error:
                self._faults.add("sleep handler", store.name, error)
                failed.append(f"{store.name!r} failed: {error}")
            else:
                snapshots += purged.snapshots
                size_bytes += purged.size_bytes
        if failed:
            raise SnapshotError(
                f"not all saved conversations could be removed, {'; '.join(failed)}; ask again"
            )
        return Purged(snapshots=snapshots, size_bytes=size_bytes)
