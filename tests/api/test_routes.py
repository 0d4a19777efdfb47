from __future__ import annotations

import pytest

from llm_router_mw.api import APISettings
from llm_router_mw.api.routes import RouteTable, route_path
from llm_router_mw.errors import MethodNotAllowedError, PathNotFoundError
from tests.support.asgi_driver import http_scope

INFERENCE = RouteTable(APISettings())
PREFIXED = RouteTable(APISettings(prefix="/llm"))
BOTH = RouteTable(APISettings(routes=frozenset({"inference", "management"})))
MANAGEMENT = RouteTable(APISettings(routes=frozenset({"management"}), prefix="/llm"))


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/models", "/v1/anything/else", "/v1/health"])
def test_the_whole_of_v1_is_ours(path: str) -> None:
    assert INFERENCE.claims(path)
    assert PREFIXED.claims("/llm" + path)
    assert not PREFIXED.claims(path)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/v1x", "/v12/models", "/v", "/health", "/models", "/models/load", "/api/v1/models"],
)
def test_everything_else_is_the_apps(path: str) -> None:
    assert not INFERENCE.claims(path)


@pytest.mark.parametrize(
    "path",
    ["/health", "/v1/health", "/models", "/models/load", "/models/unload", "/models/sse"],
)
def test_management_paths_are_ours_only_where_asked_for(path: str) -> None:
    assert BOTH.claims(path)
    assert MANAGEMENT.claims("/llm" + path)
    assert not MANAGEMENT.claims(path)


def test_management_alone_leaves_v1_to_the_app() -> None:
    assert not MANAGEMENT.claims("/llm/v1/models")
    assert not MANAGEMENT.claims("/llm/models/other")


def test_a_slash_at_the_end_makes_no_difference() -> None:
    assert INFERENCE.match("/v1/models/") is INFERENCE.match("/v1/models")
    assert BOTH.claims("/models/")
    assert not INFERENCE.claims("/models/")
    assert not BOTH.claims("/models//")


def test_an_unknown_path_is_not_found() -> None:
    with pytest.raises(PathNotFoundError, match="'/v1/nope'"):
        INFERENCE.match("/v1/nope")


def test_a_wrong_method_is_told_the_right_ones() -> None:
    with pytest.raises(MethodNotAllowedError, match="does not take GET") as caught:
        INFERENCE.match("/v1/completions").handler("GET")
    assert caught.value.fields["allow"] == "POST, OPTIONS"


def test_events_have_no_head() -> None:
    assert BOTH.match("/models").allow == "GET, HEAD, OPTIONS"
    assert BOTH.match("/models/sse").allow == "GET, OPTIONS"


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/v1/models", "", "/v1/models"),
        ("/llm/v1/models", "/llm", "/v1/models"),
        ("/v1/models", "/llm", "/v1/models"),
        ("/llmv1/models", "/llm", "/llmv1/models"),
        ("/llm", "/llm", ""),
    ],
)
def test_the_mount_point_is_taken_off_in_both_conventions(path: str, root: str, below: str) -> None:
    assert route_path(http_scope("GET", path, root_path=root)) == below


def test_a_scope_without_root_path_is_understood() -> None:
    assert route_path({"type": "http", "path": "/v1"}) == "/v1"
