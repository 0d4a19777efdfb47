"""States under the names that llama-server's clients know."""

from __future__ import annotations

import pytest

from llm_router_mw.types import InstanceState, client_state

LLAMA_SERVER = {"unloaded", "loading", "loaded", "sleeping", "downloading"}


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (InstanceState.UNLOADED, "unloaded"),
        (InstanceState.DOWNLOADING, "downloading"),
        (InstanceState.LOADING, "loading"),
        (InstanceState.LOADED, "loaded"),
        (InstanceState.DRAINING, "loaded"),
        (InstanceState.STOPPING, "loaded"),
        (InstanceState.FAILED, "unloaded"),
    ],
)
def test_clients_see_llama_servers_names(state: InstanceState, name: str) -> None:
    assert client_state(state) == name


def test_no_state_is_unknown_to_clients() -> None:
    assert {client_state(state) for state in InstanceState} <= LLAMA_SERVER
