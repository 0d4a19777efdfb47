"""Which weights the processor rearranges."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGUFTensor
from llm_router_mw.memory import repack


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    repack.rows_by_type.cache_clear()
    yield
    repack.rows_by_type.cache_clear()


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(repack, "_CPU_INFO", path)
    monkeypatch.setattr(sys, "platform", "linux")
    return path


def tensor(kind: str, *shape: int) -> GGUFTensor:
    return GGUFTensor("blk.0.attn_q.weight", shape, GGML_TYPE_NUMBERS[kind], 0, 1)


@pytest.mark.parametrize(
    ("line", "types"),
    [
        ("flags\t\t: fpu sse4_2 avx avx2", {"q4_0", "q4_k", "iq4_nl", "mxfp4"}),
        ("flags\t\t: avx2 avx512f", {"q4_0", "q4_k", "iq4_nl", "mxfp4", "q2_k"}),
        (
            "Features\t: fp asimd asimddp",
            {"q1_0", "q4_0", "q8_0", "iq4_nl", "mxfp4", "q4_k", "q5_k", "q6_k"},
        ),
        ("flags\t\t: sse2", set()),
        ("model name\t: unknown", set()),
    ],
)
def test_the_processor_decides_about_types(processor: Path, line: str, types: set[str]) -> None:
    processor.write_text(f"processor\t: 0\n{line}\n")
    assert set(repack.rows_by_type()) == {GGML_TYPE_NUMBERS[name] for name in types}


def test_without_an_answer_nothing_is_rearranged(processor: Path) -> None:
    assert repack.rows_by_type() == {}


def test_apples_processors_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert GGML_TYPE_NUMBERS["q8_0"] in repack.rows_by_type()


@pytest.mark.parametrize(
    ("kind", "shape", "of_experts", "expected"),
    [
        ("q4_0", (64, 16), False, True),
        ("q4_0", (64, 12), False, False),
        ("q8_0", (64, 16), False, False),
        ("q4_0", (64,), False, False),
        ("q4_0", (64, 16, 4), False, False),
        ("q4_0", (64, 16, 4), True, True),
        ("q4_0", (64, 16), True, False),
        ("q4_0", (64, 16, 1), False, True),
    ],
)
def test_matrices_of_whole_blocks_of_rows(
    processor: Path, kind: str, shape: tuple[int, ...], of_experts: bool, expected: bool
) -> None:
    processor.write_text("flags\t: avx2\n")
    assert repack.is_repacked(tensor(kind, *shape), of_experts=of_experts) is expected
