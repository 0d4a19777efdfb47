"""The chosen placement policy has the say; where it fails another one stands in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from llm_router_mw.errors import ConfigError, ModelLoadError
from llm_router_mw.faults import Faults
from llm_router_mw.router.placing import Placing
from llm_router_mw.types import Device, LoadOptions, Model, Placement

MODEL = Model(id="a", path="/a.gguf", source="test", options=LoadOptions())
MINE, OURS = Placement(n_ctx=1), Placement(n_ctx=2)


class Policy:
    """Answers as it was told."""

    def __init__(self, answer: Any) -> None:
        self.name = "mine"
        self.answer = answer

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        if isinstance(self.answer, Exception):
            raise self.answer
        places: Sequence[Placement] = self.answer
        return places


def placing(answer: Any) -> tuple[Placing, Faults]:
    faults = Faults()
    return Placing(Policy(answer), Policy([OURS]), faults), faults


def test_its_places_are_taken() -> None:
    made, faults = placing((MINE,))
    assert (made.name, made.place(MODEL, ())) == ("mine", [MINE])
    assert faults.counts == {}


@pytest.mark.parametrize("answer", [TypeError("a bug"), None, ["a GPU"]], ids=str)
def test_where_it_fails_the_other_one_decides(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made, faults = placing(answer)
    for _ in range(2):
        assert made.place(MODEL, ()) == [OURS]
    assert faults.counts == {"placement policy 'mine'": 2}
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


def test_what_it_refuses_is_refused() -> None:
    made, faults = placing(ConfigError("there is no such GPU"))
    with pytest.raises(ConfigError, match="no such GPU"):
        made.place(MODEL, ())
    assert faults.counts == {}


def test_without_any_place_the_model_cannot_be_loaded() -> None:
    made, _ = placing(())
    with pytest.raises(ModelLoadError, match="policy 'mine' finds no place for 'a'"):
        made.place(MODEL, ())
