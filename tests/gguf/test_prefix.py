"""A header is read from the beginning of a file as soon as enough of it is here."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router_mw.errors import InvalidGGUFError
from llm_router_mw.gguf import MAX_PREFIX_BYTES, HeaderPrefix, ValueType
from llm_router_mw.gguf.cursor import Cursor
from llm_router_mw.testing.gguf import array, small_model, string, u32, u64

MODEL = small_model()
DATA = MODEL.data()


def fed(data: bytes, file_bytes: int | None = None) -> HeaderPrefix:
    prefix = HeaderPrefix("a.gguf", len(data) if file_bytes is None else file_bytes)
    prefix.feed(data)
    return prefix


def test_it_is_there_as_soon_as_its_last_byte_is() -> None:
    size = len(MODEL.header())
    whole = fed(DATA).header()
    assert whole is not None
    for n_bytes in range(1, len(DATA)):
        header = fed(DATA[:n_bytes], len(DATA)).header()
        assert (header is not None) == (n_bytes >= size), n_bytes
        assert header is None or header == whole


def test_more_is_wanted_each_time_but_never_more_than_there_is() -> None:
    prefix = HeaderPrefix("a.gguf", 5 * 1024**2)
    wanted = []
    head = small_model({"words": array(ValueType.STRING, ["word" * 10] * 200_000)}).data()
    while len(prefix) < prefix.file_bytes:
        wanted.append(prefix.wanted_bytes)
        prefix.feed(head[len(prefix) : prefix.wanted_bytes])
        assert prefix.data == head[: len(prefix)]
        if len(prefix) < prefix.file_bytes:
            assert prefix.header() is None
    assert wanted == [1024**2, 2 * 1024**2, 4 * 1024**2, 5 * 1024**2]
    with pytest.raises(InvalidGGUFError, match="the file ends"):
        prefix.header()


def test_numbers_that_are_skipped_need_not_be_here() -> None:
    model = small_model({"scores": array(ValueType.FLOAT32, [0.5] * 1000)})
    position = model.header().index(string("scores")) + 200
    assert fed(model.header()[:position], len(model.data())).header() is None
    assert fed(model.header(), len(model.data())).header() is not None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"JUNK" * 20, "it begins with"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"GGUF" + u32(3) + u64(2**40) + u64(1) + bytes(100), "it announces"),
        (b"GGUF" + u32(3) + u64(0) + u64(1) + u64(2**62) + bytes(100), "makes the header longer"),
    ],
)
def test_what_is_wrong_is_told_without_asking_for_more(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidGGUFError, match=problem):
        fed(data, 80 * 1024**3).header()


def test_it_ends_when_too_much_was_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_router_mw.gguf.prefix.MAX_PREFIX_BYTES", 100)
    prefix = HeaderPrefix("a.gguf", len(DATA))
    assert prefix.wanted_bytes == 100
    prefix.feed(DATA[:100])
    with pytest.raises(InvalidGGUFError, match="its header is longer than 100 bytes"):
        prefix.header()
    assert MAX_PREFIX_BYTES >= 64 * 1024**2


@pytest.mark.parametrize(
    "read", [lambda cursor: cursor.take(50, "it"), lambda cursor: cursor.skip_strings(2, "strings")]
)
def test_a_file_that_shrinks_while_it_is_read_is_cut_short(read: Callable[[Cursor], None]) -> None:
    cursor = Cursor(BytesIO(string("abc")), "a.gguf", 100)
    with pytest.raises(InvalidGGUFError, match="the file ends"):
        read(cursor)
    assert cursor.is_cut_short


@given(
    at=st.integers(0, len(DATA) - 1),
    junk=st.binary(min_size=1, max_size=16),
    given_bytes=st.integers(0, len(DATA)),
    file_bytes=st.sampled_from([len(DATA), len(DATA) + 7, 2**40]),
)
@settings(deadline=None, derandomize=True, database=None)
def test_any_damage_is_refused_or_asks_for_no_more_than_there_is(
    at: int, junk: bytes, given_bytes: int, file_bytes: int
) -> None:
    damaged = (DATA[:at] + junk + DATA[at + len(junk) :])[:given_bytes]
    prefix = fed(damaged, file_bytes)
    try:
        header = prefix.header()
    except InvalidGGUFError:
        return
    assert header is not None or len(damaged) < prefix.wanted_bytes <= file_bytes
