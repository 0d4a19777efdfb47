"""The host takes its order from whoever started it, and answers once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_router_mw import wire
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import WireError
from llm_router_mw.shared.address import Address
from llm_router_mw.shared.order import Failed, Order, Ready, answer_decoder
from llm_router_mw.shared.plan import Plan
from llm_router_mw.shared.starter import Starter
from llm_router_mw.types import Failure

PLAN = Plan(config=RouterConfig(hf_token="hf_x"), folder="/srv")


class Ends:
    """What the one who starts has: the other ends of the pipes, and the lock."""

    def __init__(self, folder: Path) -> None:
        self.reader, theirs = os.pipe()
        mine, self.writer = os.pipe()
        self.lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        self.starter = Starter(mine, theirs)

    def give(self) -> Order:
        order = Order(PLAN, Address("/run", "s"), self.lock, 5.0)
        os.write(self.writer, wire.encode(order))
        return order

    def answers(self) -> list[Ready | Failed]:
        return list(answer_decoder().feed(os.read(self.reader, 1 << 16)))


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(tmp_path)
    yield ends
    for descriptor in (ends.reader, ends.writer):
        os.close(descriptor)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_the_lock_is_held_until_the_answer(ends: Ends) -> None:
    os.set_inheritable(ends.lock, True)
    order = ends.give()
    assert ends.starter.order() == order
    assert is_open(ends.lock)
    assert not os.get_inheritable(ends.lock)
    ends.starter.tell(Ready(77))
    assert not is_open(ends.lock)
    assert ends.answers() == [Ready(77)]


def test_only_the_first_answer_counts(ends: Ends) -> None:
    ends.give()
    ends.starter.order()
    failure = Failed(Failure(kind="ConfigError", message="no"))
    ends.starter.tell(failure)
    ends.starter.tell(Ready(77))
    assert ends.answers() == [failure]
    assert ends.answers() == []


def test_an_order_in_pieces_is_one(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_router_mw.shared.starter._READ_BYTES", 7)
    assert ends.give() == ends.starter.order()


def test_a_starter_that_is_gone_needs_no_answer(tmp_path: Path) -> None:
    ends = Ends(tmp_path)
    ends.give()
    ends.starter.order()
    os.close(ends.reader)
    ends.starter.tell(Ready(77))
    assert not is_open(ends.lock)
    os.close(ends.writer)


def test_without_an_order_there_is_nothing_to_be(tmp_path: Path) -> None:
    ends = Ends(tmp_path)
    os.close(ends.writer)
    with pytest.raises(WireError, match="ended before it said"):
        ends.starter.order()


SEIZING = """
import os
from llm_router_mw.shared.order import Ready
from llm_router_mw.shared.starter import Starter
starter = Starter.seize()
print("printed", flush=True)
os.write(1, b"from native code;")
assert os.read(0, 1) == b""
starter.tell(Ready(5))
"""


def test_what_prints_does_no_harm() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SEIZING], input=b"x", capture_output=True, check=True, timeout=30
    )
    assert list(answer_decoder().feed(ran.stdout)) == [Ready(5)]
    assert b"printed" in ran.stderr
    assert b"from native code" in ran.stderr
