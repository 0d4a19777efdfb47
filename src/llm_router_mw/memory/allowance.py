"""Options that say a number of MiB for all devices, or for single ones by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llm_router_mw.types import Device
from llm_router_mw.units import MIB

DEFAULT = "default"
"""Key of a mapping that stands for all devices that are not named."""

Allowance = int | Mapping[str, int]
"""MiB: for each device, or by the names of :func:`names`."""


def names(device: Device) -> tuple[str, ...]:
    """Return what *device* may be called in an option, the most exact name first."""
    given = (device.id, device.pci_id, device.backend_name, device.kind, DEFAULT)
    return tuple(name for name in given if name)


def allowance_bytes(option: Allowance | None, device: Device) -> int | None:
    """Return what *option* says of *device*, in bytes; None if it says nothing."""
    if option is None or isinstance(option, int):
        return None if option is None else option * MIB
    named = next((option[name] for name in names(device) if name in option), None)
    return None if named is None else named * MIB


def unknown_names(option: Allowance | None, devices: Iterable[Device]) -> set[str]:
    """Return the names in *option* that none of *devices* has."""
    if not isinstance(option, Mapping):
        return set()
    return set(option) - {DEFAULT} - {name for device in devices for name in names(device)}
