"""Errors: the drawn tree is the real one, and what clients see survives the pipe."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from llm_router_mw import errors
from llm_router_mw.errors import (
    AvailabilityError,
    LeaseExpiredError,
    LLMRouterError,
    ModelLoadError,
    RouterNotRunningError,
    error_from,
)
from llm_router_mw.types import Failure


def real_tree(base: type[LLMRouterError], depth: int = 0) -> Iterator[tuple[int, str]]:
    """Yield depth and name of *base* and all its descendants of the package."""
    yield depth, base.__name__
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from real_tree(child, depth + 1)


def drawn_tree() -> Iterator[tuple[int, str]]:
    """Yield depth and name of each class in the docstring's drawing."""
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"((?:[│├└─]+ *| {4})*)(\w+Error)\b", line)
        if match:
            assert len(match[1]) % 4 == 0
            yield len(match[1]) // 4, match[2]


def parents(tree: Iterator[tuple[int, str]]) -> dict[str, str | None]:
    """Return class → base class."""
    path: list[str] = []
    found: dict[str, str | None] = {}
    for depth, name in tree:
        del path[depth:]
        found[name] = path[-1] if path else None
        path.append(name)
    return found


ALL = sorted(name for _, name in real_tree(LLMRouterError))

# What clients depend on; an error that has no row is a 500 server_error.
STATUSES = {
    "InvalidRequestError": (400, "invalid_request_error", None),
    "ContextExceededError": (400, "exceed_context_size_error", "context_length_exceeded"),
    "ModelNotLoadedError": (400, "invalid_request_error", "model_not_loaded"),
    "AuthenticationError": (401, "authentication_error", "invalid_api_key"),
    "PermissionDeniedError": (403, "permission_error", "permission_denied"),
    "ModelNotFoundError": (404, "not_found_error", "model_not_found"),
    "PathNotFoundError": (404, "not_found_error", None),
    "MethodNotAllowedError": (405, "invalid_request_error", None),
    "ClientStalledError": (408, "server_error", "client_stalled"),
    "SnapshotError": (500, "server_error", None),
    "RequestTooLargeError": (413, "invalid_request_error", "request_too_large"),
    "ModelFileError": (422, "invalid_request_error", "model_file_unusable"),
    "InvalidGGUFError": (422, "invalid_request_error", "model_file_invalid"),
    "NotSupportedError": (501, "not_supported_error", None),
    "ModelTooLargeError": (507, "insufficient_memory_error", "model_too_large"),
    "DownloadError": (502, "server_error", "model_download_failed"),
    "DiskFullError": (507, "server_error", "disk_full"),
    "ModelLoadError": (502, "server_error", "model_load_failed"),
    "WorkerDiedError": (502, "server_error", "worker_died"),
    "HostDiedError": (502, "server_error", "host_died"),
    "RouterNotRunningError": (503, "unavailable_error", None),
    "RequestLeftError": (503, "unavailable_error", "request_left"),
    "GuardFailedError": (503, "unavailable_error", "guard_failed"),
    "QueueFullError": (429, "rate_limit_error", "queue_full"),
    "QueueTimeoutError": (503, "unavailable_error", "queue_timeout"),
    "ModelCoolingDownError": (503, "unavailable_error", "model_cooling_down"),
    "ModelUnloadedError": (503, "unavailable_error", "model_unloaded"),
    "LeaseExpiredError": (503, "unavailable_error", "lease_expired"),
}
BASES = {
    "RequestError": (400, "invalid_request_error", None),
    "AvailabilityError": (503, "unavailable_error", None),
}


def test_the_drawn_tree_is_the_real_one() -> None:
    assert parents(drawn_tree()) == parents(real_tree(LLMRouterError))


@pytest.mark.parametrize("name", ALL)
def test_clients_see_the_status_of_the_condition(name: str) -> None:
    kind = getattr(errors, name)
    expected = (STATUSES | BASES).get(name, (500, "server_error", None))
    assert (kind.status, kind.error_type, kind.code) == expected


@pytest.mark.parametrize("name", ALL)
def test_every_error_is_named_and_documented(name: str) -> None:
    assert name.endswith("Error")
    assert getattr(errors, name).__doc__


@pytest.mark.parametrize("name", ALL)
def test_every_error_survives_the_pipe(name: str) -> None:
    sent = getattr(errors, name)("it went wrong", param="model", retry_after_seconds=2.5, n=[1])
    frame = msgspec.msgpack.encode(sent.to_failure())
    received = error_from(msgspec.msgpack.decode(frame, type=Failure))
    assert type(received) is type(sent)
    assert str(received) == received.message == "it went wrong"
    assert received.param == "model"
    assert received.retry_after_seconds == 2.5
    assert received.fields == sent.fields


def test_an_error_without_fields_names_none() -> None:
    error = LLMRouterError("it went wrong")
    assert error.param is None
    assert error.retry_after_seconds is None


def test_what_is_only_unavailable_now_may_be_asked_for_again_soon() -> None:
    assert RouterNotRunningError("closing").retry_after_seconds == 1.0
    assert LeaseExpiredError("over", retry_after_seconds=3.0).retry_after_seconds == 3.0


def test_a_failure_of_unknown_kind_is_still_an_error() -> None:
    error = error_from(Failure(kind="NewerError", message="it went wrong"))
    assert type(error) is LLMRouterError
    assert error.message == "it went wrong"


class TeapotError(AvailabilityError):
    """As a plugin may have one."""

    status = 418
    code = "teapot"


def test_an_error_of_a_plugin_looks_the_same_to_clients_however_far_it_came() -> None:
    error: LLMRouterError = TeapotError("short and stout", param="cups")
    for _ in range(2):
        frame = msgspec.msgpack.encode(error.to_failure())
        error = error_from(msgspec.msgpack.decode(frame, type=Failure))
        assert (error.status, error.error_type, error.code) == (418, "unavailable_error", "teapot")
        assert (error.message, error.param) == ("short and stout", "cups")
        assert error.retry_after_seconds == 1.0
    assert LLMRouterError.status == 500


def test_a_lack_of_memory_survives_the_pipe() -> None:
    for lacking in (True, False):
        crossed = error_from(ModelLoadError("no", out_of_memory=lacking).to_failure())
        assert isinstance(crossed, ModelLoadError)
        assert crossed.out_of_memory is lacking
    assert not ModelLoadError("no").out_of_memory


def test_what_is_no_text_in_a_message_can_be_told_all_the_same() -> None:
    name = b"caf\xe9.gguf".decode(errors="surrogateescape")
    error = ModelLoadError(f"{name} cannot be read")
    assert str(error) == error.message == "caf?.gguf cannot be read"
    msgspec.json.encode(error.to_failure())
