"""What a header says is read; what a header lies about is refused, quickly and in one way."""

from __future__ import annotations

import errno
import os
import random
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import BinaryIO

import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_router_mw.errors import InvalidGGUFError, ModelFileError
from llm_router_mw.gguf import GGUFArray, ValueType, cursor, read_header, reader
from llm_router_mw.testing.gguf import (
    GGUFFile,
    Item,
    Tensor,
    array,
    scalar,
    small_model,
    string,
    u32,
    u64,
    value,
)

HUGE = 2**63


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_a_header_is_read_whole(path: Path) -> None:
    header = read_header(small_model().write(path))
    assert header.version == 3
    assert header.architecture == "llama"
    assert header.n_ctx_train == 512
    assert header.file_type == 7
    assert header.chat_template == "{{ messages }}"
    assert header.alignment == 32
    assert header.data_offset % 32 == 0
    assert header.file_bytes == path.stat().st_size
    first, second = header.tensors
    assert (first.name, first.shape, first.size_bytes) == ("token_embd.weight", (4, 3), 48)
    assert (second.name, second.offset) == ("output_norm.weight", 64)


def test_it_says_what_the_reference_reader_says(path: Path) -> None:
    ours = read_header(small_model().write(path))
    theirs = GGUFReader(path)
    assert ours.data_offset == theirs.data_offset
    assert [(t.name, t.ggml_type, t.size_bytes) for t in ours.tensors] == [
        (t.name, t.tensor_type, t.n_bytes) for t in theirs.tensors
    ]
    assert set(ours.metadata) == {key for key in theirs.fields if not key.startswith("GGUF.")}


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (ValueType.UINT8, 200),
        (ValueType.INT8, -100),
        (ValueType.UINT16, 60_000),
        (ValueType.INT16, -30_000),
        (ValueType.UINT32, 4_000_000_000),
        (ValueType.INT32, -2_000_000_000),
        (ValueType.UINT64, 2**64 - 1),
        (ValueType.INT64, -(2**63)),
        (ValueType.FLOAT32, 0.5),
        (ValueType.FLOAT64, 1e300),
        (ValueType.BOOL, True),
    ],
)
def test_every_scalar_type_is_decoded(path: Path, kind: ValueType, number: float) -> None:
    header = read_header(GGUFFile(metadata={"x": scalar(kind, number)}).write(path))
    assert header.metadata["x"] == number
    assert type(header.metadata["x"]) is type(number)


def test_short_arrays_of_numbers_are_kept_and_others_only_described(path: Path) -> None:
    kept, skipped = [*range(reader.KEPT_ITEMS)], [*range(reader.KEPT_ITEMS + 1)]
    metadata: dict[str | bytes, Item] = {
        "kept": array(ValueType.INT32, kept),
        "skipped": array(ValueType.INT32, skipped),
        "strings": array(ValueType.STRING, ["a", "b"]),
        "empty": array(ValueType.STRING, []),
        "after": 1,
    }
    header = read_header(GGUFFile(metadata=metadata).write(path))
    assert header.metadata["kept"] == GGUFArray(ValueType.INT32, len(kept), tuple(kept))
    assert header.metadata["skipped"] == GGUFArray(ValueType.INT32, len(skipped))
    assert header.metadata["strings"] == GGUFArray(ValueType.STRING, 2)
    assert header.metadata["empty"] == GGUFArray(ValueType.STRING, 0)
    assert header.integer("after") == 1


def test_questions_that_a_header_cannot_answer_are_answered_with_none(path: Path) -> None:
    header = read_header(
        GGUFFile(metadata={"general.architecture": 1, "general.file_type": True}).write(path)
    )
    assert header.architecture is None
    assert header.file_type is None
    assert header.n_ctx_train is None
    assert header.chat_template is None


def test_text_that_is_not_utf8_does_not_make_a_model_unusable(path: Path) -> None:
    metadata: dict[str | bytes, Item] = {
        "general.name": u32(ValueType.STRING) + string(b"M\xf6rike")
    }
    assert (
        read_header(GGUFFile(metadata=metadata).write(path)).text("general.name") == "M\ufffdrike"
    )


def test_another_alignment_is_followed(path: Path) -> None:
    metadata: dict[str | bytes, Item] = {"general.alignment": 128}
    tensors = (Tensor("a"), Tensor("b"))
    header = read_header(GGUFFile(metadata=metadata, tensors=tensors, alignment=128).write(path))
    assert header.alignment == 128
    assert [tensor.offset for tensor in header.tensors] == [0, 128]


def test_a_tensor_of_unknown_type_is_accepted_unsized(path: Path) -> None:
    tensors = (Tensor("new", (4,), 9999), Tensor("b", offset=32))
    header = read_header(GGUFFile(tensors=tensors).write(path))
    assert header.tensors[0].size_bytes is None
    assert header.tensors[1].size_bytes == 16


def test_a_tensor_may_have_no_dimensions_or_no_elements(path: Path) -> None:
    tensors = (Tensor("scalar", (), size_bytes=4), Tensor("none", (0, HUGE - 1), size_bytes=0))
    header = read_header(GGUFFile(tensors=tensors).write(path))
    assert [tensor.size_bytes for tensor in header.tensors] == [4, 0]


def test_values_lie_across_the_edges_of_the_window(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_model().write(path)
    whole = read_header(path)
    for window_bytes in range(8, 64):
        monkeypatch.setattr(cursor, "WINDOW_BYTES", window_bytes)
        assert read_header(path) == whole


def test_a_large_vocabulary_takes_milliseconds(path: Path) -> None:
    words = [f"token{number}" for number in range(150_000)]
    metadata: dict[str | bytes, Item] = {
        "tokens": array(ValueType.STRING, words),
        "scores": array(ValueType.FLOAT32, [0.0] * len(words)),
        "merges": array(ValueType.STRING, words),
    }
    GGUFFile(metadata=metadata).write(path)
    started = time.perf_counter()
    header = read_header(path)
    assert header.metadata["merges"] == GGUFArray(ValueType.STRING, 150_000)
    assert time.perf_counter() - started < 1.0


BAD = {
    "empty": (b"", "it is empty"),
    "not GGUF": (b"\x7fELF and so on, far longer", "begins with b'\\x7fELF'"),
    "short and not GGUF": (b"GG", "begins with b'GG'"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "magic only": (b"GGUF", "the file ends"),
    "version 0": (GGUFFile(version=0).data(), "version 0 is not"),
    "version 1": (GGUFFile(version=1).data(), "version 1 is not"),
    "version 99": (GGUFFile(version=99).data(), "update this package"),
    "byte-swapped version": (GGUFFile(version=0x03000000).data(), "big-endian"),
    "too many tensors": (GGUFFile(n_tensors=HUGE).data(), "tensors and 0 metadata keys"),
    "too many keys": (GGUFFile(n_keys=HUGE).data(), f"0 tensors and {HUGE} metadata keys"),
    "more tensors than there are": (GGUFFile(n_tensors=9).header(), "the file ends"),
    "more keys than there are": (GGUFFile(n_keys=9).header(), "the file ends"),
    "key longer than the file": (
        GGUFFile(n_keys=1).header() + u64(HUGE) + b"key",
        "before metadata key 0",
    ),
    "empty key": (GGUFFile(metadata={"": 1}).data(), "metadata key 0 has a name of 0 bytes"),
    "long key": (GGUFFile(metadata={"k" * 65_536: 1}).data(), "has a name of 65536 bytes"),
    "key not UTF-8": (GGUFFile(metadata={b"\xff": 1}).data(), "metadata key 0 is not UTF-8"),
    "key twice": (
        GGUFFile(n_keys=2, metadata={"a": value(1) + string("a") + value(2)}).data(),
        "'a' appears twice",
    ),
    "unknown type": (GGUFFile(metadata={"a": u32(13)}).data(), "'a' is of unknown type 13"),
    "string longer than the file": (
        GGUFFile(metadata={"a": u32(ValueType.STRING) + u64(HUGE)}).data(),
        "before the value of 'a'",
    ),
    "array longer than the file": (
        GGUFFile(metadata={"a": u32(9) + u32(ValueType.UINT64) + u64(HUGE)}).data(),
        f"before the array 'a' of {HUGE} items",
    ),
    "string array longer than the file": (
        GGUFFile(metadata={"a": u32(9) + u32(ValueType.STRING) + u64(HUGE)}).data(),
        f"before the array 'a' of {HUGE} items",
    ),
    "string in an array longer than the file": (
        GGUFFile(metadata={"a": u32(9) + u32(ValueType.STRING) + u64(2) + u64(HUGE)}).data(),
        "before the array 'a' of 2 items",
    ),
    "last string in an array longer than the file": (
        GGUFFile(metadata={"a": u32(9) + u32(ValueType.STRING) + u64(1) + u64(HUGE)}).data(),
        "before the array 'a' of 1 items",
    ),
    "nested arrays": (
        GGUFFile(metadata={"a": u32(9) * 100 + u64(1)}).data(),
        "'a' is an array of arrays",
    ),
    "alignment 0": (GGUFFile(metadata={"general.alignment": 0}).data(), "not a power of two"),
    "alignment 3": (GGUFFile(metadata={"general.alignment": 3}).data(), "not a power of two"),
    "alignment in words": (GGUFFile(metadata={"general.alignment": "x"}).data(), "is 'x'"),
    "tensor twice": (GGUFFile(tensors=[Tensor("a"), Tensor("a")]).data(), "'a' appears twice"),
    "tensor without a name": (GGUFFile(tensors=[Tensor("")]).data(), "tensor 0 has a name of 0"),
    "tensor's name not UTF-8": (GGUFFile(tensors=[Tensor(b"\xff")]).data(), "tensor 0 is not UTF"),
    "five dimensions": (GGUFFile(tensors=[Tensor("a", (1,) * 5)]).data(), "has 5 dimensions"),
    "2^31 dimensions": (
        GGUFFile(tensors=[Tensor("a", n_dims=2**31)]).data(),
        f"has {2**31} dimensions",
    ),
    "too many elements": (
        GGUFFile(tensors=[Tensor("a", (2**32, 2**31))]).data(),
        "impossible shape",
    ),
    "half a block": (GGUFFile(tensors=[Tensor("a", (33,), 8)]).data(), "block size"),
    "data beyond the end": (
        GGUFFile(tensors=[Tensor("a", (2**40,))]).data(),
        "tensor 'a' ends at byte",
    ),
    "offset beyond the end": (
        GGUFFile(tensors=[Tensor("a", (4,), 9999, offset=HUGE)]).data(),
        "said to begin at",
    ),
    "unsized data beyond the end": (
        GGUFFile(tensors=[Tensor("a", (4,), 9999), Tensor("b", offset=HUGE)]).data(),
        "tensor 'b' ends at byte",
    ),
    "a gap between tensors": (
        GGUFFile(tensors=[Tensor("a"), Tensor("b", offset=64)]).data(),
        "said to begin at 64, not at 32",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_the_byte_and_what_to_do(path: Path, case: str) -> None:
    data, sentence = BAD[case]
    path.write_bytes(data)
    with pytest.raises(InvalidGGUFError) as caught:
        read_header(path)
    message = caught.value.message
    assert message.startswith(f"{path.name} is not a well-formed GGUF file: ")
    assert sentence in message
    assert ", at byte " in message
    assert message.rpartition("; ")[2]


@pytest.mark.parametrize("size", range(0, len(small_model().data()), 7))
def test_a_file_cut_short_anywhere_is_refused(path: Path, size: int) -> None:
    path.write_bytes(small_model().data()[:size])
    with pytest.raises(InvalidGGUFError):
        read_header(path)


def test_a_missing_last_byte_is_noticed(path: Path) -> None:
    data = small_model().data()
    end_of_last_tensor = len(data)
    path.write_bytes(data[: end_of_last_tensor - 1])
    with pytest.raises(InvalidGGUFError, match="the file is incomplete, download it again"):
        read_header(path)


def test_a_vast_file_of_empty_strings_takes_bounded_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor, "MAX_STRINGS", 1000)
    count = 10**8
    head = GGUFFile(metadata={"a": u32(9) + u32(ValueType.STRING) + u64(count)}).header()
    path.write_bytes(head)
    os.truncate(path, len(head) + 8 * count)
    with pytest.raises(InvalidGGUFError, match="strings to more than 1000"):
        read_header(path)


def test_a_vast_header_is_not_read_to_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "MAX_HEADER_BYTES", 1000)
    words = array(ValueType.STRING, ["x" * 10] * 100)
    GGUFFile(metadata={"a": words}).write(path)
    with pytest.raises(InvalidGGUFError, match="makes the header longer than 1000 bytes"):
        read_header(path)


def test_vast_text_takes_bounded_memory(path: Path) -> None:
    size = 10**9
    head = GGUFFile(metadata={"a": u32(ValueType.STRING) + u64(size)}).header()
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidGGUFError, match="metadata to more than"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * cursor.MAX_KEPT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kept_bytes", [0, 150])
def test_a_file_that_shrinks_while_it_is_read_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    data = GGUFFile(metadata={"a": array(ValueType.STRING, ["x"] * 100)}).write(path).read_bytes()

    class Shrinking(cursor.Cursor):
        def __init__(self, file: BinaryIO, name: str, file_bytes: int) -> None:
            super().__init__(file, name, file_bytes)
            os.truncate(path, kept_bytes)

    monkeypatch.setattr(cursor, "WINDOW_BYTES", 16)
    monkeypatch.setattr(reader, "Cursor", Shrinking)
    with pytest.raises(InvalidGGUFError, match=rf"the file ends \({len(data)} bytes\)"):
        read_header(path)


def test_a_missing_file_is_a_model_file_error(path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file or directory; correct the path"):
        read_header(path)


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is a directory; name a"):
        read_header(tmp_path)


def test_a_pipe_does_not_block_the_reader(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ModelFileError, match="is not a regular file"):
        read_header(path)


def test_a_path_with_a_null_byte_is_a_model_file_error() -> None:
    with pytest.raises(ModelFileError, match="embedded null byte; correct the path"):
        read_header("a\0b.gguf")


def test_a_failing_disk_is_a_model_file_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(cursor.Cursor, "take", fail)
    with pytest.raises(ModelFileError, match="Input/output error; check the file"):
        read_header(small_model().write(path))


VALID = small_model().data()
FIELDS = [u32(0xFFFFFFFF), u64(HUGE), u64(2**64 - 1), u64(0), u32(9), b"\xff"]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with bytes replaced, fields overwritten, parts cut out or doubled."""
    data = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        change = draw(st.sampled_from(["byte", "field", "cut", "double", "truncate"]))
        size = draw(st.integers(1, 32))
        if change == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "field":
            field = draw(st.sampled_from(FIELDS))
            data[at : at + len(field)] = field
        elif change == "cut":
            del data[at : at + size]
        elif change == "double":
            data[at:at] = data[at : at + size]
        else:
            del data[at:]
    return bytes(data)


@given(data=st.one_of(mutated(), st.binary(max_size=200).map(lambda tail: VALID[:24] + tail)))
@settings(max_examples=500, deadline=1000, derandomize=True)
def test_any_damage_either_parses_or_is_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(data)
        file.flush()
        try:
            header = read_header(file.name)
        except InvalidGGUFError:
            return
        assert header.data_offset >= 24


@pytest.mark.parametrize("window_bytes", [97, 4096, cursor.WINDOW_BYTES])
def test_strings_of_all_lengths_are_passed(
    path: Path, monkeypatch: pytest.MonkeyPatch, window_bytes: int
) -> None:
    monkeypatch.setattr(cursor, "WINDOW_BYTES", window_bytes)
    chance = random.Random(3)
    common = [chance.randrange(12) for _ in range(1000)]
    sizes = [*range(200), *common, 255, 256, 257, 5000, *common, *[0] * 300, 10**6, *common]
    # Zeros, so that every length could also be read at a wrong place.
    words = array(ValueType.STRING, ["\0" * size for size in sizes])
    header = read_header(GGUFFile(metadata={"words": words, "after": 7}).write(path))
    assert header.metadata["words"] == GGUFArray(ValueType.STRING, len(sizes))
    assert header.integer("after") == 7


@pytest.mark.parametrize("at", [0, 1, 127, 128, 900, 999])
@pytest.mark.parametrize("length", [HUGE, 2**64 - 1, 2**32, 10**6])
def test_a_single_length_that_lies_is_noticed_among_a_thousand(
    path: Path, at: int, length: int
) -> None:
    words = [string("word")] * 1000
    words[at] = u64(length) + b"word"
    listed = u32(ValueType.ARRAY) + u32(ValueType.STRING) + u64(len(words)) + b"".join(words)
    path.write_bytes(GGUFFile(metadata={"a": listed}).data())
    with pytest.raises(InvalidGGUFError, match="before the array 'a' of 1000 items"):
        read_header(path)
