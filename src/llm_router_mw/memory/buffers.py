"""Whose memory llama.cpp's buffers are: from a worker's names for devices to the router's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from llm_router_mw.types import HOST, Cost, Device, MeasuredMemory, Placement

MAPPED = "CPU_Mapped"
"""Buffer type of weights that are pages of their file."""
PLAIN = "CPU"
"""Buffer type of weights that could have been mapped."""


def costs_by_device(
    memory: MeasuredMemory, placement: Placement, devices: Sequence[Device]
) -> dict[str, Cost] | None:
    """Return what *memory* takes of each device that *placement* uses, and of the host.

    None if some of it is on a device that is none of *devices*.
    """
    names = _names(memory.devices, placement, devices)
    found = dict.fromkeys((*placement.devices, HOST), Cost())
    for buffer in memory.buffers:
        if not buffer.weights_bytes + buffer.context_bytes + buffer.compute_bytes:
            continue
        device = HOST if buffer.device == HOST else names.get(buffer.device)
        if device is None:
            return None
        cost = found.get(device, Cost())
        found[device] = structs.replace(
            cost,
            weights_bytes=cost.weights_bytes + buffer.weights_bytes,
            context_bytes=cost.context_bytes + buffer.context_bytes,
            compute_bytes=cost.compute_bytes + buffer.compute_bytes,
        )
    return found


def _names(
    seen: Sequence[Device], placement: Placement, devices: Sequence[Device]
) -> Mapping[str, str]:
    """Return the router's ids by the worker's.

    Those that have the same ids on both sides are the same. Otherwise a worker that sees just the
    devices of its placement has them in that order, even where several have one address; and if it
    sees others, address or name must tell.
    """
    known = {device.id for device in devices}
    if all(mine.id in known for mine in seen):
        return {mine.id: mine.id for mine in seen}
    if len(seen) == len(placement.devices):
        return {mine.id: theirs for mine, theirs in zip(seen, placement.devices, strict=True)}
    by_name = {device.backend_name: device.id for device in devices if device.backend_name}
    by_address = {device.pci_id: device.id for device in devices if device.pci_id}
    found = {}
    for device in seen:
        name = device.id if device.id in known else by_address.get(device.pci_id)
        name = name or by_name.get(device.backend_name)
        if name is not None:
            found[device.id] = name
    return found
