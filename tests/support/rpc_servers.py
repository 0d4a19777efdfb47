"""Servers of llama.cpp's RPC backend on this machine: the processor, as GPUs of somebody else."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio

from tests.support.waiting import until

CPU = 0
_POINTER = ctypes.c_void_p


def serve(endpoint: str) -> None:
    """Serve the processor at *endpoint*, for ever."""
    from llama_cpp._ggml import libggml

    def function(name: str, result: Any, *arguments: Any) -> Any:
        found = getattr(libggml, name)
        found.restype, found.argtypes = result, arguments
        return found

    registry = function("ggml_backend_reg_by_name", _POINTER, ctypes.c_char_p)(b"RPC")
    lookup = function("ggml_backend_reg_get_proc_address", _POINTER, _POINTER, ctypes.c_char_p)
    start = ctypes.CFUNCTYPE(
        None,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.POINTER(_POINTER),
    )(lookup(registry, b"ggml_backend_rpc_start_server"))
    processor = function("ggml_backend_dev_by_type", _POINTER, ctypes.c_int)(CPU)
    start(endpoint.encode(), None, 1, 1, (_POINTER * 1)(processor))


@contextmanager
def rpc_servers(count: int) -> Iterator[list[str]]:
    """Run *count* servers; yields where they listen."""
    endpoints = [f"127.0.0.1:{_free_port()}" for _ in range(count)]
    command = (sys.executable, "-m", "tests.support.rpc_servers")
    servers = [
        subprocess.Popen((*command, endpoint), stdout=subprocess.DEVNULL) for endpoint in endpoints
    ]
    try:
        for endpoint in endpoints:
            anyio.run(until, partial(_listens, endpoint))
        yield endpoints
    finally:
        for server in servers:
            server.kill()
            server.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _listens(endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    serve(sys.argv[1])
