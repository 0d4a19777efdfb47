"""Errors as web processes see them."""

from __future__ import annotations

import pytest

from llm_router_mw.errors import InvalidRequestError, error_from
from llm_router_mw.shared.failures import failure_of


def test_an_error_of_ours_crosses_with_its_fields() -> None:
    error = error_from(failure_of(InvalidRequestError("no", param="prompt")))
    assert isinstance(error, InvalidRequestError)
    assert (error.message, error.param) == ("no", "prompt")


def test_an_unexpected_one_is_logged_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    failure = failure_of(KeyError("/home/somebody/secret"))
    assert failure.kind == "LLMRouterError"
    assert "secret" not in failure.message
    assert "KeyError: '/home/somebody/secret'" in caplog.text


@pytest.mark.parametrize("value", [object(), 2**80, {object(): 1}])
def test_fields_that_cannot_cross_are_left_behind(value: object) -> None:
    failure = failure_of(InvalidRequestError("no", odd=value))
    assert (failure.kind, failure.message, failure.fields) == ("InvalidRequestError", "no", {})
