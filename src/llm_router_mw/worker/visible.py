"""Which devices the backends of this process may see."""

from __future__ import annotations

from llm_router_mw.types import Placement

_UUID_PREFIXES = ("GPU-", "MIG-")
# A backend that sees a device makes a context on it, which takes memory even if nothing is put
# there.
_NOTHING = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "-1", "GGML_VK_VISIBLE_DEVICES": ""}


def visibility(placement: Placement | None) -> dict[str, str]:
    """Return the variables that restrict the backends to the devices of *placement*.

    They work only before the first use of any backend. Devices that are known by their address
    cannot be named there: the engine picks them among all that there are.
    """
    if placement is None:
        return {}
    if not placement.devices:
        return dict(_NOTHING)
    if all(device.startswith(_UUID_PREFIXES) for device in placement.devices):
        return {"CUDA_VISIBLE_DEVICES": ",".join(placement.devices)}
    return {}
