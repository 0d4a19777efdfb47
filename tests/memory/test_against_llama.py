"""Our arithmetic against llama.cpp's own, for models of real sizes and options drawn by a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import pytest

from tests.support.dry_runs import DryRuns
from tests.support.estimate_matrix import Comparison, Matrix, drawn_options
from tests.support.sparse_models import SPARSE_MODELS

MIB = 2**20
N_QUICK, N_SLOW = 3, 40
"""Sets of options for each model."""
LARGE_STATES = ("granite-8b", "mamba2-7b", "qwen35-27b")
"""Models whose dry runs really allocate hundreds of megabytes."""


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with DryRuns() as dry_runs:
        yield Matrix(tmp_path_factory.mktemp("sparse"), dry_runs)


def compared(matrix: Matrix, names: Sequence[str], seed: int, count: int) -> list[Comparison]:
    found = []
    for name in names:
        for options in drawn_options(name, seed, count):
            comparison = matrix.compare(name, options)
            assert comparison is not None, f"llama.cpp refuses {name} with {options}"
            found.append(comparison)
    return found


def check(comparisons: Sequence[Comparison]) -> None:
    """Hold the promises of the estimate against what llama.cpp says."""
    for each in comparisons:
        assert (each.our_weights, each.our_context) == (each.weights, each.context), str(each)
    under = [each for each in comparisons if each.spare < 0]
    assert not under, "\n".join(map(str, under))
    over = [each for each in comparisons if each.our_upper > 1.10 * each.real + 64 * MIB]
    assert not over, "\n".join(map(str, over))
    assert median(abs(each.compute_error) for each in comparisons) < 0.05


def test_a_sample_is_exact_and_never_too_little(matrix: Matrix) -> None:
    check(
        compared(matrix, [name for name in SPARSE_MODELS if name not in LARGE_STATES], 1, N_QUICK)
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_are_exact_and_never_too_little(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    comparisons = compared(matrix, SPARSE_MODELS, 7, N_SLOW)
    assert len(comparisons) >= 1000
    with capsys.disabled():
        print("\nThe least to spare, and the largest errors:")
        print(*sorted(comparisons, key=lambda each: each.spare)[:5], sep="\n")
        print(*sorted(comparisons, key=lambda each: -abs(each.compute_error))[:5], sep="\n")
    check(comparisons)


def test_the_same_seed_draws_the_same_options() -> None:
    assert [*drawn_options("llama-8b", 1, 9)] == [*drawn_options("llama-8b", 1, 9)]
    assert [*drawn_options("llama-8b", 1, 9)] != [*drawn_options("llama-8b", 2, 9)]


@pytest.mark.parametrize("name", ["llama-8b", "gemma3-4b", "deepseek2-lite", "bge-m3"])
def test_the_estimate_knows_what_more_context_and_batch_cost(matrix: Matrix, name: str) -> None:
    pooling = "mean" if name == "bge-m3" else ""
    small = matrix.compare(name, {"n_ctx": 2048, "n_batch": 128, "pooling": pooling})
    large = matrix.compare(name, {"n_ctx": 16_384, "n_batch": 1024, "pooling": pooling})
    assert small is not None
    assert large is not None
    assert small.our_upper < large.our_upper
    assert small.real < large.real
