"""Devices of servers on this machine, which ggml treats like GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from llm_router_mw.memory.ggml_probe import GgmlProbe
from llm_router_mw.types import Device
from tests.support.dry_runs import DryRuns
from tests.support.rpc_servers import rpc_servers

WANTED = "LLM_ROUTER_TEST_RPC"


@pytest.fixture(scope="session")
def servers() -> Iterator[list[str]]:
    """Where three servers listen; workers and dry runs are told of them."""
    if not os.environ.get(WANTED):
        pytest.skip("needs a llama.cpp that was built with its RPC backend: run 'tox run -e rpc'")
    with rpc_servers(3) as endpoints, pytest.MonkeyPatch.context() as environment:
        environment.setenv("LLAMA_ARG_RPC", ",".join(endpoints))
        yield endpoints


@pytest.fixture(scope="session")
def devices(servers: list[str]) -> tuple[Device, ...]:
    """The servers' devices, as the router finds them."""
    return tuple(GgmlProbe(os.environ, {"rpc"}).inventory())


@pytest.fixture
def dry_runs(devices: tuple[Device, ...]) -> Iterator[DryRuns]:
    """Dry runs; one child at a time, since each server answers one process at a time."""
    with DryRuns() as child:
        yield child
