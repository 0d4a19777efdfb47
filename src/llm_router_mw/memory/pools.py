"""From devices to the pools of memory that they draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_router_mw.types import Device


def by_pool(by_device: Mapping[str, int], devices: Sequence[Device]) -> dict[str, int]:
    """Return *by_device* summed by pool; what is none of *devices* is a pool of its own."""
    pools = {device.id: device.pool for device in devices}
    total: dict[str, int] = {}
    for device, n_bytes in by_device.items():
        pool = pools.get(device, device)
        total[pool] = total.get(pool, 0) + n_bytes
    return total
