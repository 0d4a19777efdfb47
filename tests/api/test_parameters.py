from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.api.parameters import GenerationRequest, StreamOptions
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import Sampling


def test_nothing_given_means_the_defaults() -> None:
    request = GenerationRequest()
    assert request.sampling() == Sampling()
    assert request.token_limit() is None
    assert request.stops() == ()
    assert not request.include_usage


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_the_token_limit_has_three_names(name: str) -> None:
    for value, limit in ((1, 1), (500, 500), (-1, None), (10**30, 2**31 - 1)):
        fields: dict[str, Any] = {name: value}
        assert GenerationRequest(**fields).token_limit() == limit
    for wrong in (0, -2, -(10**30)):
        fields = {name: wrong}
        with pytest.raises(InvalidRequestError, match="at least 1") as caught:
            GenerationRequest(**fields).token_limit()
        assert caught.value.param == name


def test_the_newer_name_of_the_limit_wins() -> None:
    assert GenerationRequest(max_tokens=5, max_completion_tokens=3).token_limit() == 3


def test_stop_may_be_one_string_or_several_and_empty_ones_do_not_count() -> None:
    assert GenerationRequest(stop="end").stops() == ("end",)
    assert GenerationRequest(stop=["a", "", "b"]).stops() == ("a", "b")
    with pytest.raises(InvalidRequestError, match="at most 16") as caught:
        GenerationRequest(stop=["x"] * 17).stops()
    assert caught.value.param == "stop"


def test_usage_in_the_stream_is_asked_for() -> None:
    assert GenerationRequest(stream_options=StreamOptions(include_usage=True)).include_usage
