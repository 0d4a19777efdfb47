"""For tests of plugins, and of apps that mount a router: pretended engines, devices, models, time.

With the package installed, pytest also finds the fixtures ``make_llm_router``,
``llm_router_engine``, ``llm_router_devices`` and ``llm_router_clock``.
"""

from llm_router_mw.testing.clock import VirtualClock
from llm_router_mw.testing.conformance import (
    check_chat_format,
    check_device_probe,
    check_engine,
    check_estimator,
    check_eviction_policy,
    check_model_source,
    check_placement_policy,
)
from llm_router_mw.testing.devices import FakeDevices
from llm_router_mw.testing.engine import FakeEngine, FakeInstance, FakeStream
from llm_router_mw.testing.gguf import GGUFFile, Tensor, small_model, write_gguf
from llm_router_mw.testing.router import FakePlugin, FakeSource, make_router
from llm_router_mw.testing.sleep_conformance import check_sleep_handler

__all__ = [
    "FakeDevices",
    "FakeEngine",
    "FakeInstance",
    "FakePlugin",
    "FakeSource",
    "FakeStream",
    "GGUFFile",
    "Tensor",
    "VirtualClock",
    "check_chat_format",
    "check_device_probe",
    "check_engine",
    "check_estimator",
    "check_eviction_policy",
    "check_model_source",
    "check_placement_policy",
    "check_sleep_handler",
    "make_router",
    "small_model",
    "write_gguf",
]
