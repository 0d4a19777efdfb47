from __future__ import annotations

import pytest

from llm_router_mw.api.problem import as_problem, problem_body, problem_headers
from llm_router_mw.errors import (
    AuthenticationError,
    ContextExceededError,
    InvalidRequestError,
    MethodNotAllowedError,
    ModelNotFoundError,
    ModelTooLargeError,
    QueueTimeoutError,
)


def test_an_error_has_openais_fields_and_llama_servers_code() -> None:
    assert problem_body(InvalidRequestError("no", param="top_p")) == {
        "error": {
            "message": "no",
            "type": "invalid_request_error",
            "param": "top_p",
            "code": 400,
        }
    }


def test_a_class_with_a_code_of_its_own_shows_it() -> None:
    assert problem_body(ModelNotFoundError("no"))["error"]["code"] == "model_not_found"


def test_a_prompt_that_is_too_long_comes_with_its_figures() -> None:
    error = problem_body(ContextExceededError("no", n_prompt_tokens=9, n_ctx=8))["error"]
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (9, 8)
    assert error["type"] == "exceed_context_size_error"


def test_a_model_that_is_too_large_comes_with_what_each_device_lacks() -> None:
    devices = {"host": {"needed_bytes": 9, "available_bytes": 8}}
    assert problem_body(ModelTooLargeError("no", devices=devices))["error"]["devices"] == devices
    assert problem_body(ModelTooLargeError("no"))["error"]["devices"] == {}


@pytest.mark.parametrize(("seconds", "header"), [(0.0, b"1"), (0.2, b"1"), (4.1, b"5")])
def test_retry_after_is_in_whole_seconds_and_never_at_once(seconds: float, header: bytes) -> None:
    error = QueueTimeoutError("later", retry_after_seconds=seconds)
    assert problem_headers(error) == [(b"retry-after", header)]


def test_headers_that_http_wants_are_there() -> None:
    assert problem_headers(AuthenticationError("key")) == [(b"www-authenticate", b"Bearer")]
    assert problem_headers(MethodNotAllowedError("no", allow="GET")) == [(b"allow", b"GET")]
    assert problem_headers(InvalidRequestError("no")) == []


def test_what_was_not_foreseen_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    problem = as_problem(KeyError("secret"))
    assert problem.status == 500
    assert "secret" not in problem.message
    assert "KeyError" in caplog.text


def test_what_was_foreseen_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    error = ModelNotFoundError("no")
    assert as_problem(error) is error
    assert not caplog.records
