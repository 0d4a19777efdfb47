"""The device probes that come with the package: ``host``, ``nvml`` and ``ggml``."""

from __future__ import annotations

import os
from collections.abc import Set

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.memory.backends import installed_backends
from llm_router_mw.memory.ggml_probe import GgmlProbe
from llm_router_mw.memory.host import HostProbe
from llm_router_mw.memory.nvml import NvmlProbe
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.router.process import worker_environment
from llm_router_mw.types import DeviceKind


@hookimpl
def llm_router_register_device_probes(config: RouterConfig) -> list[DeviceProbe]:
    """Supply probes that see what a worker would see: it inherits part of our environment."""
    environ = worker_environment(os.environ)
    backends = installed_backends(environ)
    nvml = NvmlProbe(environ, _nvidia_kind(backends))
    ggml = GgmlProbe(environ, backends, has_nvidia=lambda: bool(nvml.inventory()))
    return [HostProbe(), nvml, ggml]


def _nvidia_kind(backends: Set[DeviceKind]) -> DeviceKind | None:
    """Return the backend that uses NVIDIA's GPUs; llama.cpp prefers CUDA where it has both."""
    if "cuda" in backends:
        return "cuda"
    return "vulkan" if "vulkan" in backends else None
