"""A context takes the host's memory as tokens come; where that cannot be, all is as usual."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.engine import context, untouched
from llm_router_mw.engine.untouched import UntouchedMemory
from llm_router_mw.memory.processes import process_memory
from llm_router_mw.worker.memory import give_back
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.support.tiny_architectures import ARCHITECTURES, write_tiny

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can give pages back")

MIB = 1 << 20
LARGE = {"n_ctx": 1 << 17, "n_parallel": 2}
APART = {"type_k": "f32", "type_v": "f32", "kv_unified": False}
LARGE_BYTES = 64 * MIB
"""What the tiny model's context takes with so many tokens."""


def private_bytes() -> int:
    memory = process_memory(os.getpid())
    assert memory is not None
    return memory.private_bytes


class Buffer:
    """A buffer of ggml's on the host."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = untouched._make(untouched._host_buffers(), size)

    def clear(self, value: int) -> None:
        untouched._clear(self.pointer, value)

    @property
    def content(self) -> bytes:
        return ctypes.string_at(untouched._base(self.pointer), self.size)

    def fill(self) -> None:
        ctypes.memset(untouched._base(self.pointer), 1, self.size)

    def free(self) -> None:
        if self.pointer is not None:
            untouched._free(self.pointer)


@contextmanager
def buffer(size: int, memory: UntouchedMemory) -> Iterator[Buffer]:
    """Make a buffer of which *memory* has charge."""
    with memory.offered():
        made = Buffer(size)
    yield made
    made.free()


def settled_bytes() -> int:
    """Return what this process holds once it has given back what other tests have left."""
    gc.collect()
    give_back()
    return private_bytes()


def test_a_large_context_takes_little_until_tokens_come(load: Load, endless: Path) -> None:
    load(endless).close()
    before = settled_bytes()
    driver = load(endless, **LARGE)
    assert private_bytes() - before < LARGE_BYTES / 4
    assert driver.info.memory is not None
    # What is promised counts as held.
    assert driver.info.memory.private_bytes - before >= LARGE_BYTES
    assert driver.info.memory.peak_bytes >= driver.info.memory.private_bytes


def test_it_can_be_taken_at_once(load: Load, endless: Path) -> None:
    load(endless).close()
    before = settled_bytes()
    driver = load(endless, touch_context=True, **LARGE)
    assert private_bytes() - before >= LARGE_BYTES
    assert driver.info.memory is not None
    assert driver.info.memory.private_bytes - before < 1.5 * LARGE_BYTES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("options", [{}, APART], ids=str)
def test_answers_are_the_same(
    load: Load, tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    model = write_tiny(tmp_path / "model.gguf", architecture)

    def answers(driver: Driver) -> list[str]:
        given = [driver.submit(prompt(text, max_tokens=20)) for text in ("the fox", "a dog " * 20)]
        driver.run()
        return [driver.text(each) for each in given]

    taken_at_once = answers(load(model, touch_context=True, **options))
    assert answers(load(model, **options)) == taken_at_once


class TestBuffer:
    @pytest.mark.parametrize("size", [64, 5000, 100_000, MIB + 13])
    def test_it_is_cleared_to_its_ends_however_used_it_was(self, size: int) -> None:
        with buffer(size, UntouchedMemory()) as made:
            made.fill()
            made.clear(0)
            assert made.content == bytes(size)

    def test_another_value_is_written(self) -> None:
        with buffer(100_000, UntouchedMemory()) as made:
            made.clear(3)
            assert made.content == b"\3" * made.size

    def test_what_is_cleared_later_is_none_of_the_next_one(self) -> None:
        memory = UntouchedMemory()
        with buffer(100_000, memory) as made:
            with memory.offered() as sizes:
                pass
            made.clear(0)
            assert sizes == []

    def test_memory_that_cannot_be_given_back_is_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mmap, "MADV_DONTNEED", -1)
        memory = UntouchedMemory()
        with memory.offered() as sizes:
            made = Buffer(100_000)
            made.fill()
            made.clear(0)
        assert made.content == bytes(made.size)
        assert sizes == []
        made.free()

    def test_a_buffer_that_cannot_be_had_is_none(self) -> None:
        with buffer(1 << 60, UntouchedMemory()) as made:
            assert made.pointer is None


class TestOtherBuilds:
    """Structures of another version: nothing is replaced, and everything works as ever."""

    @pytest.mark.parametrize(
        ("name", "index"),
        [
            ("_CLEAR_AT", 8),
            ("_CLEAR_AT", 10),
            ("_ALLOCATE_AT", 2),
            ("_ALLOCATE_AT", 3),
            ("_ALLOCATE_AT", 4),
        ],
    )
    def test_another_layout_is_found_out(
        self, monkeypatch: pytest.MonkeyPatch, load: Load, endless: Path, name: str, index: int
    ) -> None:
        monkeypatch.setattr(untouched, name, index)
        self.check_as_usual(monkeypatch, load, endless)

    @pytest.mark.parametrize("maps", ["", "0000-ffff rw-p\n", None], ids=["no", "others", "gone"])
    def test_memory_that_is_not_to_be_written_is_left_alone(
        self,
        monkeypatch: pytest.MonkeyPatch,
        load: Load,
        endless: Path,
        tmp_path: Path,
        maps: str | None,
    ) -> None:
        path = tmp_path / "maps"
        if maps is not None:
            path.write_text(maps)
        monkeypatch.setattr(untouched, "_MAPS", path)
        self.check_as_usual(monkeypatch, load, endless)

    def test_where_no_buffer_can_be_had_nothing_is_known(
        self, monkeypatch: pytest.MonkeyPatch, load: Load, endless: Path
    ) -> None:
        monkeypatch.setattr(untouched, "_make", lambda kind, size: None)
        self.check_as_usual(monkeypatch, load, endless)

    def test_other_systems_have_their_own_ways(
        self, monkeypatch: pytest.MonkeyPatch, load: Load, endless: Path
    ) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        self.check_as_usual(monkeypatch, load, endless)

    def check_as_usual(self, monkeypatch: pytest.MonkeyPatch, load: Load, endless: Path) -> None:
        """See that a context of an engine that begins like this is touched at once, and works."""
        before = [untouched._word(untouched._host_buffers(), each).value for each in range(6)]
        memory = UntouchedMemory()
        monkeypatch.setattr(context, "untouched_memory", memory)
        driver = load(endless)
        assert memory._works is False
        assert driver.answer(prompt(max_tokens=3))
        after = [untouched._word(untouched._host_buffers(), each).value for each in range(6)]
        assert after == before
