"""Which NVIDIA GPUs the environment lets CUDA see, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_router_mw.types import Device

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"


def visible_devices(
    gpus: Sequence[Sequence[Device]], environ: Mapping[str, str]
) -> Sequence[Device]:
    """Return what CUDA would see of *gpus*: each the parts of one GPU, in the order of the bus.

    As CUDA does it: indexes or beginnings of UUIDs, and nothing after the first that is unknown.
    """
    setting = environ.get(VISIBLE)
    if setting is None:
        return [part for gpu in gpus for part in gpu]
    seen: list[Device] = []
    for entry in setting.split(","):
        named = _named(entry.strip(), gpus)
        if named is None or named in seen:
            break
        seen.append(named)
    return seen


def order_is_unknown(gpus: Sequence[Sequence[Device]], environ: Mapping[str, str]) -> bool:
    """Return whether indexes in the setting may mean others than those in the order of the bus.

    CUDA puts the fastest GPU first, unless told otherwise; equal ones are in the order of the bus.
    """
    by_index = any(entry.strip().isdecimal() for entry in environ.get(VISIBLE, "").split(","))
    names = {part.name for gpu in gpus for part in gpu}
    return by_index and len(names) > 1 and environ.get(ORDER) != "PCI_BUS_ID"


def _named(entry: str, gpus: Sequence[Sequence[Device]]) -> Device | None:
    if entry.isdecimal():
        index = int(entry)
        return next(iter(gpus[index]), None) if index < len(gpus) else None
    parts = [part for gpu in gpus for part in gpu if entry and part.id.startswith(entry)]
    return parts[0] if len(parts) == 1 else None
