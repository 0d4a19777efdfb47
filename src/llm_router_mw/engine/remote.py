"""Devices of other machines, which llama.cpp reaches over the network (its RPC backend)."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from llama_cpp._ggml import libggml

from llm_router_mw.errors import ModelLoadError

SERVERS: Final = "LLAMA_ARG_RPC"
"""Variable that names the servers, as llama-server's own: ``host:port``, with commas between."""
_POINTER: Final = ctypes.c_void_p
_CONNECT_SECONDS: Final = 5.0
_Add: Final = ctypes.CFUNCTYPE(_POINTER, ctypes.c_char_p)


def register_servers(environ: Mapping[str, str]) -> None:
    """Let ggml have the devices of the servers that *environ* names, besides its own.

    Raises:
        ModelLoadError: this llama.cpp cannot use them, or one of them does not answer.
    """
    endpoints = [each.strip() for each in environ.get(SERVERS, "").split(",") if each.strip()]
    if endpoints:
        _register(tuple(endpoints))


@cache
def _register(endpoints: Sequence[str]) -> None:
    by_name = _function("ggml_backend_reg_by_name", _POINTER, ctypes.c_char_p)
    registry = by_name(b"RPC")
    if registry is None:
        raise ModelLoadError(
            f"{SERVERS} names servers, but this llama.cpp was built without its RPC backend; "
            "build llama-cpp-python with CMAKE_ARGS=-DGGML_RPC=on, or unset the variable"
        )
    lookup = _function("ggml_backend_reg_get_proc_address", _POINTER, _POINTER, ctypes.c_char_p)
    add = _Add(lookup(registry, b"ggml_backend_rpc_add_server"))
    register = _function("ggml_backend_register", None, _POINTER)
    for endpoint in endpoints:
        _check(endpoint)
        register(add(endpoint.encode()))


def _check(endpoint: str) -> None:
    """Raise ``ModelLoadError`` unless somebody listens there: llama.cpp would end the process."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"the RPC server {endpoint!r} of {SERVERS} cannot be reached: {error}; start it, or "
            "take it out"
        ) from error


def _function(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(libggml, name)
    function.restype, function.argtypes = result, arguments
    return function
