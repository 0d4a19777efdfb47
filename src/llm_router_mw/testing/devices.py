"""Devices that no machine has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.types import HOST, Device

GIB = 1024**3


class FakeDevices:
    """A device probe, and the plugin that supplies it: says that there are such devices.

    Args:
        gpus: bytes of each GPU, by id.
        host_bytes: memory of the host.
    """

    name = "fake-devices"

    def __init__(
        self, gpus: Mapping[str, int] | None = None, *, host_bytes: int = 64 * GIB
    ) -> None:
        self._devices = {
            HOST: Device(
                id=HOST,
                pool=HOST,
                kind="host",
                name="a host",
                total_bytes=host_bytes,
                free_bytes=host_bytes,
            )
        }
        for id, size in (gpus or {}).items():
            self._devices[id] = Device(
                id=id, pool=id, kind="cuda", name="a GPU", total_bytes=size, free_bytes=size
            )

    @hookimpl
    def llm_router_register_device_probes(self, config: RouterConfig) -> list[DeviceProbe]:
        return [self]

    def inventory(self) -> Sequence[Device]:
        """Return the devices as tests have left them."""
        return list(self._devices.values())

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        """Return nothing: what pretended workers hold is not known."""
        return {}

    def set_free(self, id: str, free_bytes: int) -> None:
        """Let device *id* have *free_bytes* left: other programs hold the rest."""
        self._devices[id] = replace(self._devices[id], free_bytes=free_bytes)
