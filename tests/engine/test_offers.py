"""What is offered, and how much of it a model can go on from."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.engine.blocks import Beginning, block_hashes, hashed_key, packed
from llm_router_mw.engine.model import Rewind
from llm_router_mw.engine.offers import Offers, Rewinding
from llm_router_mw.snapshot_file import SnapshotHeader, read_header, snapshot_of, write_snapshot
from llm_router_mw.types import Snapshot, Spare
from llm_router_mw.wire import SnapshotNews

KEY = ("", ())
TEXT = hashed_key(KEY)
TOKENS = list(range(300))


def write(
    folder: Path, name: str, tokens: list[int], checkpoints: tuple[int, ...] = ()
) -> Snapshot:
    """Write a snapshot that no llama.cpp would take."""
    path = folder / name
    header = write_snapshot(
        path,
        [
            ("state", len(tokens), bytes(100)),
            *[("checkpoint", length, bytes(50)) for length in checkpoints],
        ],
        identity="i",
        key=TEXT,
        tokens=packed(tokens),
        blocks=block_hashes(tokens, TEXT),
        created_at=1.0,
    )
    return snapshot_of(path, header)


@pytest.fixture
def news() -> list[SnapshotNews]:
    return []


@pytest.fixture
def offers(news: list[SnapshotNews]) -> Offers:
    offers = Offers(news.append)
    offers.identity = "i"
    return offers


ANYWHERE = Rewinding(Rewind.ANYWHERE, 0)


class TestFind:
    def test_the_longest_is_found(self, offers: Offers, tmp_path: Path) -> None:
        short, long = (write(tmp_path, str(n), TOKENS[:n]) for n in (100, 200))
        offers.offer([short, long], [])
        found = offers.find(Beginning(TOKENS, KEY), 299, 0, ANYWHERE)
        assert found is not None
        assert (found.snapshot, found.length) == (long, 200)

    def test_of_equal_ones_the_smaller(self, offers: Offers, tmp_path: Path) -> None:
        short, long = (write(tmp_path, str(n), TOKENS[:n]) for n in (200, 300))
        offers.offer([long, short], [])
        found = offers.find(Beginning(TOKENS[:150], KEY), 149, 0, ANYWHERE)
        assert found is not None
        assert (found.snapshot, found.length) == (short, 149)

    def test_no_more_than_the_limit(self, offers: Offers, tmp_path: Path) -> None:
        offers.offer([write(tmp_path, "a", TOKENS)], [])
        found = offers.find(Beginning(TOKENS, KEY), 299, 298, ANYWHERE)
        assert found is not None
        assert found.length == 299
        assert offers.find(Beginning(TOKENS, KEY), 299, 299, ANYWHERE) is None

    def test_files_that_promise_too_little_are_not_read(
        self, offers: Offers, tmp_path: Path, news: list[SnapshotNews]
    ) -> None:
        snapshot = write(tmp_path, "a", TOKENS[:100])
        Path(snapshot.path).unlink()
        offers.offer([snapshot], [])
        assert offers.find(Beginning(TOKENS, KEY), 299, 100, ANYWHERE) is None
        assert news == []

    def test_a_file_is_read_once(self, offers: Offers, tmp_path: Path) -> None:
        snapshot = write(tmp_path, "a", TOKENS[:100])
        offers.offer([snapshot], [])
        beginning = Beginning(TOKENS, KEY)
        assert offers.find(beginning, 299, 0, ANYWHERE) is not None
        Path(snapshot.path).unlink()
        assert offers.find(beginning, 299, 0, ANYWHERE) is not None
        # Offered anew, it may be another one.
        offers.offer([snapshot], [])
        assert offers.find(beginning, 299, 0, ANYWHERE) is None

    def test_one_that_can_be_cut_beats_a_longer_one_that_cannot(
        self, offers: Offers, tmp_path: Path
    ) -> None:
        nowhere = Rewinding(Rewind.NOWHERE, 0)
        longer = write(tmp_path, "a", [*TOKENS[:200], 7, 7], checkpoints=(90,))
        whole = write(tmp_path, "b", TOKENS[:150])
        offers.offer([longer, whole], [])
        found = offers.find(Beginning(TOKENS, KEY), 299, 0, nowhere)
        assert found is not None
        assert (found.snapshot, found.length, found.checkpoint) == (whole, 150, None)
        offers.withdraw([whole.path])
        found = offers.find(Beginning(TOKENS, KEY), 299, 0, nowhere)
        assert found is not None
        assert (found.snapshot, found.length, found.checkpoint) == (longer, 90, 1)


class TestRewinding:
    @pytest.fixture
    def header(self, tmp_path: Path) -> SnapshotHeader:
        return read_header(write(tmp_path, "a", TOKENS[:200], checkpoints=(50, 100)).path)

    @pytest.mark.parametrize(
        ("rewind", "n_window", "length", "expected"),
        [
            (Rewind.ANYWHERE, 0, 120, (120, None)),
            (Rewind.NOWHERE, 0, 200, (200, None)),
            (Rewind.NOWHERE, 0, 199, (100, 2)),
            (Rewind.NOWHERE, 0, 99, (50, 1)),
            (Rewind.NOWHERE, 0, 49, (0, None)),
            (Rewind.WINDOW, 64, 200, (200, None)),
            (Rewind.WINDOW, 64, 199, (100, 2)),
            # All of it is within the window, so nothing of it is missing.
            (Rewind.WINDOW, 200, 199, (199, None)),
        ],
    )
    def test_where_a_saved_sequence_can_be_gone_on_from(
        self,
        header: SnapshotHeader,
        rewind: Rewind,
        n_window: int,
        length: int,
        expected: tuple[int, int | None],
    ) -> None:
        assert Rewinding(rewind, n_window).resume(header, length) == expected


class TestBooks:
    def test_of_whom_there_is_something(self, offers: Offers, tmp_path: Path) -> None:
        assert not offers.knows(KEY)
        offers.offer([write(tmp_path, "a", TOKENS[:100])], [])
        assert offers.knows(KEY)
        assert not offers.knows(("somebody else", ()))

    def test_what_is_covered(self, offers: Offers, tmp_path: Path) -> None:
        offers.offer([write(tmp_path, "a", TOKENS[:200])], [])
        assert offers.covers(TEXT, block_hashes(TOKENS[:130], TEXT))
        assert not offers.covers(TEXT, block_hashes(TOKENS, TEXT))
        assert not offers.covers("other", block_hashes(TOKENS[:130], TEXT))

    def test_spares(self, offers: Offers) -> None:
        assert not offers.has_spares
        small, large = Spare(path="/s", limit_bytes=10), Spare(path="/l", limit_bytes=20)
        offers.offer([], [large, small])
        assert offers.spare(5) == small
        assert offers.spare(15) == large
        assert offers.spare(25) is None
        offers.spend(small)
        offers.spend(small)
        assert offers.spare(5) == large
        offers.withdraw(["/l"])
        assert not offers.has_spares
