"""The last resort."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.memory.file_size import FileSizeEstimator
from llm_router_mw.protocols import Estimator
from llm_router_mw.types import LoadOptions, Model, Placement

GIB = 1024**3


def model(path: Path, **options: bool) -> Model:
    loading = LoadOptions(**options)  # type: ignore[arg-type]
    return Model(id="m", path=str(path), source="test", options=loading)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "strange.bin"
    file.write_bytes(bytes(1000))
    return file


def test_it_asks_for_nothing_but_the_size(path: Path) -> None:
    estimator = FileSizeEstimator()
    assert isinstance(estimator, Estimator)
    found = estimator.estimate(model(path), Placement(), ())
    assert found.upper == {"host": 1200 + 2 * GIB}
    assert found.expected["host"].weights_bytes == found.soft_bytes == 1000
    assert (found.source, found.confidence) == ("file-size", "low")


def test_what_is_shared_is_charged_to_everyone(path: Path) -> None:
    both = Placement(devices=("a", "b"), n_gpu_layers=-1)
    found = FileSizeEstimator().estimate(model(path), both, ())
    assert list(found.upper) == ["a", "b"]
    assert found.soft_bytes == 0
    partly = Placement(devices=("a",), n_gpu_layers=3)
    assert list(FileSizeEstimator().estimate(model(path), partly, ()).upper) == ["a", "host"]


def test_only_a_mapped_file_may_be_dropped(path: Path) -> None:
    found = FileSizeEstimator().estimate(model(path, use_mmap=False), Placement(), ())
    assert found.soft_bytes == 0


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        FileSizeEstimator().estimate(model(tmp_path / "none"), Placement(), ())
