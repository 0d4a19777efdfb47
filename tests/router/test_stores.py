"""Several stores of conversations are asked as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.faults import Faults
from llm_router_mw.router.stores import Stores
from llm_router_mw.types import Purged, StoredSnapshot

pytestmark = pytest.mark.asyncio


def stored(name: str) -> StoredSnapshot:
    return StoredSnapshot(
        model=name, n_tokens=1, size_bytes=10, tier="ram", created_at=0.0, used_at=0.0
    )


class Store:
    """Keeps one conversation, or fails."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.purged: list[str | None] = []

    def snapshots(self) -> Sequence[StoredSnapshot]:
        if self.error is not None:
            raise self.error
        return [stored(self.name)]

    async def purge(self, path: str | None = None) -> Purged:
        if self.error is not None:
            raise self.error
        self.purged.append(path)
        return Purged(snapshots=1, size_bytes=10)


def stores(*made: Store) -> tuple[Stores, Faults]:
    faults = Faults()
    return Stores(cast("Any", made), faults), faults


async def test_what_all_keep_is_told_and_removed() -> None:
    one, other = Store("one"), Store("other")
    together, _ = stores(one, other)
    assert [each.model for each in together.snapshots()] == ["one", "other"]
    assert await together.purge("/a.gguf") == Purged(snapshots=2, size_bytes=20)
    assert (one.purged, other.purged) == (["/a.gguf"], ["/a.gguf"])


async def test_one_that_fails_hides_nothing_of_the_others() -> None:
    together, faults = stores(Store("broken", OSError("no disk")), Store("sound"))
    assert [each.model for each in together.snapshots()] == ["sound"]
    assert faults.counts == {"sleep handler 'broken'": 1}


async def test_what_could_not_be_removed_is_told_when_the_rest_is() -> None:
    other = Store("sound")
    together, faults = stores(Store("broken", OSError("no disk")), other)
    with pytest.raises(SnapshotError, match="'broken' failed: no disk; ask again"):
        await together.purge(None)
    assert other.purged == [None]
    assert faults.counts == {"sleep handler 'broken'": 1}


async def test_nobody_who_keeps_anything_is_nothing() -> None:
    together, _ = stores()
    assert together.snapshots() == ()
    assert await together.purge(None) == Purged(snapshots=0, size_bytes=0)
