"""The shipped probes see what a worker would see."""

from __future__ import annotations

from collections.abc import Set

import pytest

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins import device_probes
from llm_router_mw.memory.ggml_probe import GgmlProbe
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.types import DeviceKind
from tests.support import fake_nvml
from tests.support.fake_nvml import h200


def probes(monkeypatch: pytest.MonkeyPatch, *backends: DeviceKind) -> dict[str, DeviceProbe]:
    def installed(environ: dict[str, str]) -> Set[DeviceKind]:
        assert "SECRET" not in environ
        return frozenset(backends)

    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setattr(device_probes, "installed_backends", installed)
    found = device_probes.llm_router_register_device_probes(RouterConfig())
    assert all(isinstance(probe, DeviceProbe) for probe in found)
    return {probe.name: probe for probe in found}


def test_the_host_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(probes(monkeypatch)) == ["host", "nvml", "ggml"]


@pytest.mark.parametrize(
    ("backends", "kinds"),
    [(["cuda", "vulkan"], ["cuda"]), (["vulkan"], ["vulkan"]), (["rocm"], []), ([], [])],
)
def test_a_gpu_is_used_by_a_backend_that_there_is(
    monkeypatch: pytest.MonkeyPatch, backends: list[DeviceKind], kinds: list[DeviceKind]
) -> None:
    fake_nvml.install(monkeypatch, h200())
    nvml = probes(monkeypatch, *backends)["nvml"]
    assert [device.kind for device in nvml.inventory()] == kinds


def test_llama_cpp_is_not_asked_for_what_nvml_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, h200())
    monkeypatch.setattr(GgmlProbe, "_ask", lambda self: pytest.fail("asked"))
    assert list(probes(monkeypatch, "cuda")["ggml"].inventory()) == []
