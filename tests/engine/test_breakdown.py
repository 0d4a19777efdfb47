"""Reading llama.cpp's map of buffers: right where it can be read, and never believed blindly."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_router_mw.context_shape import context_shape
from llm_router_mw.engine import breakdown
from llm_router_mw.engine.breakdown import BreakdownError, output_memory, read_breakdown
from llm_router_mw.engine.native import llama
from llm_router_mw.engine.parameters import context_parameters, model_parameters
from llm_router_mw.types import HOST, BufferMemory, LoadOptions

OPTIONS = LoadOptions(n_ctx=512, n_parallel=2, use_mmap=False)


@pytest.fixture
def loaded(endless: Path) -> Iterator[tuple[Any, Any]]:
    """A context and its model."""
    model = llama.llama_model_load_from_file(str(endless).encode(), model_parameters(OPTIONS))
    context = llama.llama_init_from_model(model, context_parameters(OPTIONS, 2048))
    yield context, model
    llama.llama_free(context)
    llama.llama_model_free(model)


class Answer:
    """Stands for the function of llama.cpp: a map that a test has made up."""

    restype: Any = None
    argtypes: Any = None

    def __init__(self, *nodes: tuple[int, int, int, int], count: int | None = None) -> None:
        self._nodes = (breakdown._Node * max(1, len(nodes)))()
        for index, (buffer_type, *sizes) in enumerate(nodes):
            node = self._nodes[index]
            node.buffer_type = buffer_type
            node.model, node.context, node.compute = sizes
            if index + 1 < len(nodes):
                node.right = ctypes.addressof(self._nodes[index + 1])
        self.root = ctypes.addressof(self._nodes)
        self.count = len(nodes) if count is None else count

    def __call__(self, context: object) -> Any:
        return breakdown._Map(root=self.root, count=self.count)


@pytest.fixture
def buffer() -> int:
    """An address where a buffer type may be."""
    room = ctypes.create_string_buffer(64)
    # Kept by the fixture's owner until the test is over.
    ROOMS.append(room)
    return ctypes.addressof(room)


ROOMS: list[Any] = []


def read(monkeypatch: pytest.MonkeyPatch, answer: Answer, name: str = "CPU") -> object:
    library = SimpleNamespace(**{breakdown._SYMBOL: answer})
    fake = SimpleNamespace(_lib=library, llama_model_size=lambda model: 100)
    monkeypatch.setattr(breakdown, "llama", fake)
    monkeypatch.setattr(breakdown, "buffer_owner", lambda pointer: (name, HOST))
    return read_breakdown(0, 0)


def test_a_context_tells_what_it_holds(loaded: tuple[Any, Any]) -> None:
    context, model = loaded
    [found] = read_breakdown(context, model)
    assert (found.buffer_type, found.device) == ("CPU", HOST)
    assert found.weights_bytes == llama.llama_model_size(model)
    # Two layers of keys and values, 64 wide, in half precision.
    assert found.context_bytes == 2 * 2 * 512 * 64 * 2
    assert found.compute_bytes > 100_000


def test_the_output_buffer_is_reckoned_beside_it(loaded: tuple[Any, Any]) -> None:
    context, model = loaded
    assert output_memory(context, model, context_shape(OPTIONS, 2048)) == BufferMemory(
        buffer_type="output", device=HOST, compute_bytes=4 * 2 * 382
    )
    pooled = context_shape(LoadOptions(pooling="mean", n_batch=128), 2048)
    assert output_memory(context, model, pooled).compute_bytes == 4 * 128 * (382 + 64)


def test_all_nodes_are_read(monkeypatch: pytest.MonkeyPatch, buffer: int) -> None:
    found = read(monkeypatch, Answer((buffer, 60, 1, 2), (buffer, 40, 3, 4)))
    assert isinstance(found, tuple)
    assert [each.weights_bytes for each in found] == [60, 40]


def test_a_build_without_the_function_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "_SYMBOL", "no_such_function")
    with pytest.raises(BreakdownError, match="does not tell"):
        read_breakdown(0, 0)


def test_another_runtime_says_so(
    monkeypatch: pytest.MonkeyPatch, buffer: int, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.write_text("7f00-7fff r-xp 0 0 0 /usr/lib/libc++.so.1.0\n")
    monkeypatch.setattr(breakdown, "_MAPS", maps)
    with pytest.raises(BreakdownError, match="another C\\+\\+ library"):
        read(monkeypatch, Answer((buffer, 100, 0, 0)))


def test_a_system_without_maps_says_so(
    monkeypatch: pytest.MonkeyPatch, buffer: int, tmp_path: Path
) -> None:
    monkeypatch.setattr(breakdown, "_MAPS", tmp_path / "gone")
    with pytest.raises(BreakdownError, match="memory maps"):
        read(monkeypatch, Answer((buffer, 100, 0, 0)))


@pytest.mark.parametrize("count", [0, 10_000])
def test_a_number_of_entries_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, buffer: int, count: int
) -> None:
    with pytest.raises(BreakdownError, match=f"{count} buffer types"):
        read(monkeypatch, Answer((buffer, 100, 0, 0), count=count))


@pytest.mark.parametrize("count", [1, 3])
def test_a_number_of_entries_that_is_another(
    monkeypatch: pytest.MonkeyPatch, buffer: int, count: int
) -> None:
    with pytest.raises(BreakdownError, match="there are others"):
        read(monkeypatch, Answer((buffer, 100, 0, 0), (buffer, 1, 0, 0), count=count))


def test_an_address_that_is_not_mapped_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, buffer: int
) -> None:
    answer = Answer((buffer, 100, 0, 0))
    answer.root = 16
    with pytest.raises(BreakdownError, match="layout"):
        read(monkeypatch, answer)
    with pytest.raises(BreakdownError, match="layout"):
        read(monkeypatch, Answer((16, 100, 0, 0)))


def test_sizes_that_cannot_be(monkeypatch: pytest.MonkeyPatch, buffer: int) -> None:
    with pytest.raises(BreakdownError, match="a buffer type holds"):
        read(monkeypatch, Answer((buffer, 2**60, 0, 0)))
    with pytest.raises(BreakdownError, match="too few"):
        read(monkeypatch, Answer((buffer, 49, 0, 0)))


@pytest.mark.parametrize("name", ["", "\x01\x02"])
def test_names_that_cannot_be(monkeypatch: pytest.MonkeyPatch, buffer: int, name: str) -> None:
    with pytest.raises(BreakdownError, match="no readable name"):
        read(monkeypatch, Answer((buffer, 100, 0, 0)), name)
