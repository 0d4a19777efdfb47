"""Hashes of beginnings: equal for what begins equally, and for nothing else."""

from __future__ import annotations

import sys

import pytest

from llm_router_mw.engine import blocks
from llm_router_mw.engine.blocks import (
    BLOCK_TOKENS,
    Beginning,
    block_hashes,
    common_blocks,
    hashed_key,
    packed,
    unpacked,
)

ALICE = ("alice", (1.0, 0.5))
TOKENS = list(range(1000, 1300))


def test_a_key_is_the_same_text_everywhere() -> None:
    # A literal: a file is read by processes to come.
    assert hashed_key(("", ())) == "5263fcba53b619cf0bbd9051fb4a1ad9"
    assert hashed_key(ALICE) != hashed_key(("alice", (1.0, 0.6))) != hashed_key(("bob", (1.0, 0.5)))


def test_a_name_need_not_be_valid_text() -> None:
    assert hashed_key(("\udc80", ())) != hashed_key(("", ()))


def test_tokens_come_back_as_they_were() -> None:
    assert unpacked(packed([0, 1, 2**31 - 1])) == [0, 1, 2**31 - 1]


def test_files_are_the_same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed([1, 258]) == b"\x01\0\0\0\x02\x01\0\0"
    monkeypatch.setattr(blocks, "sys", type("Sys", (), {"byteorder": "big"}))
    assert (sys.byteorder == "big") == (packed([1]) == b"\x01\0\0\0")
    assert unpacked(packed([1, 258])) == [1, 258]


def test_a_hash_for_each_full_block() -> None:
    assert len(block_hashes(TOKENS, "")) == 8 * (len(TOKENS) // BLOCK_TOKENS)
    assert block_hashes(TOKENS[: BLOCK_TOKENS - 1], "") == b""


def test_a_longer_text_begins_with_the_hashes_of_a_shorter_one() -> None:
    assert block_hashes(TOKENS, "").startswith(block_hashes(TOKENS[:130], ""))


def test_one_other_token_changes_all_that_follows() -> None:
    changed = [*TOKENS[:70], 5, *TOKENS[71:]]
    left, right = block_hashes(TOKENS, ""), block_hashes(changed, "")
    assert left[:8] == right[:8]
    assert all(left[n : n + 8] != right[n : n + 8] for n in range(8, len(left), 8))
    assert common_blocks(left, right) == 1


def test_other_keys_have_other_hashes() -> None:
    assert common_blocks(block_hashes(TOKENS, "a"), block_hashes(TOKENS, "b")) == 0


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 200, 256, 300])
def test_the_common_beginning_is_counted_to_the_token(length: int) -> None:
    other = [*TOKENS[:length], *range(300 - length)]
    key = hashed_key(ALICE)
    common = Beginning(TOKENS, ALICE).common(block_hashes(other, key), packed(other))
    assert common == length


def test_the_shorter_one_is_its_own_end() -> None:
    key = hashed_key(ALICE)
    short = TOKENS[:100]
    assert Beginning(short, ALICE).common(block_hashes(TOKENS, key), packed(TOKENS)) == 100
    assert Beginning(TOKENS, ALICE).common(block_hashes(short, key), packed(short)) == 100


def test_equal_hashes_of_other_tokens_count_for_nothing() -> None:
    other = [token + 1 for token in TOKENS]
    hashes = block_hashes(TOKENS, hashed_key(ALICE))
    assert Beginning(TOKENS, ALICE).common(hashes, packed(other)) == 0
