"""NVIDIA's GPUs, read through NVML: it needs no CUDA context, so the router may ask it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

from llm_router_mw.memory.visible import ORDER, VISIBLE, order_is_unknown, visible_devices
from llm_router_mw.types import HOST, Device, DeviceKind

logger = logging.getLogger("llm_router_mw.memory")

# GPUs that have no memory of their own. Most drivers say so by refusing the question; some answer
# with the host's memory, which must not be counted twice.
_UNIFIED = re.compile(r"\bGB10\b|\(nvgpu\)|\bThor\b")
_SHARES_HOST = "uses the host's memory"
_NO_BACKEND = (
    "there are NVIDIA GPUs, and this llama.cpp cannot use them; build it with CUDA: "
    "CMAKE_ARGS=-DGGML_CUDA=on pip install --force-reinstall --no-cache-dir llama-cpp-python"
)

Handle = Any
"""NVML's own; the bindings give it no type."""


class NvmlProbe:
    """Every GPU by its UUID; where one is divided (MIG), its instances instead of it."""

    name = "nvml"

    def __init__(self, environ: Mapping[str, str], kind: DeviceKind | None = "cuda") -> None:
        """See the GPUs that *environ* lets CUDA see.

        *kind* is the backend that will use them; without one there are none to be used.
        """
        self._environ = environ
        self._kind = kind
        self._lock = Lock()
        self._library: Any = None
        self._started = False
        self._said: set[str] = set()

    def inventory(self) -> Sequence[Device]:
        """Return the GPUs as they are now, in CUDA's order; none where there is no driver."""
        return [device for _, device in self._visible()]

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        """Return what *pids* hold together on each GPU.

        A GPU is left out if none of them is seen there: in a container, NVML may know processes by
        other numbers. So is one whose driver does not tell (Windows).
        """
        found: dict[str, int] = {}
        if pids:
            for handle, device in self._visible():
                held = self._held(handle, frozenset(pids))
                if held is not None:
                    found[device.id] = held
        return found

    def _visible(self) -> list[tuple[Handle, Device]]:
        library = self._start()
        if library is None:
            return []
        gpus = self._gpus(library)
        if self._kind is None:
            if any(gpus):
                self._warn(_NO_BACKEND)
            return []
        devices = [[device for _, device in gpu] for gpu in gpus]
        if order_is_unknown(devices, self._environ):
            self._warn(f"{VISIBLE} holds indexes and the GPUs differ; set {ORDER}=PCI_BUS_ID")
        handles = {device.id: handle for gpu in gpus for handle, device in gpu}
        return [(handles[each.id], each) for each in visible_devices(devices, self._environ)]

    def _start(self) -> Any:
        """Return the library; None if it cannot be used, which is said once."""
        with self._lock:
            if not self._started:
                self._started = True
                import pynvml

                try:
                    pynvml.nvmlInit()
                    self._library = pynvml
                except pynvml.NVMLError as error:
                    logger.debug("no NVIDIA GPUs: %s", error)
            return self._library

    def _gpus(self, library: Any) -> list[list[tuple[Handle, Device]]]:
        """Return each GPU's parts; one that cannot be used has none, and keeps its index."""
        try:
            return [self._gpu(library, index) for index in range(library.nvmlDeviceGetCount())]
        except library.NVMLError as error:
            self._warn(f"the NVIDIA driver does not answer: {error}")
            return []

    def _gpu(self, library: Any, index: int) -> list[tuple[Handle, Device]]:
        try:
            gpu = library.nvmlDeviceGetHandleByIndex(index)
            pci_id = _pci_id(library.nvmlDeviceGetPciInfo(gpu))
            kind = self._kind or "other"
            return [(part, _device(library, part, pci_id, kind)) for part in _parts(library, gpu)]
        except library.NVMLError as error:
            self._warn(f"GPU {index} cannot be used: {error}")
            return []

    def _held(self, handle: Handle, pids: frozenset[int]) -> int | None:
        library = self._library
        found: dict[int, int | None] = {}
        for ask in (
            library.nvmlDeviceGetComputeRunningProcesses,
            library.nvmlDeviceGetGraphicsRunningProcesses,  # of those that use Vulkan
        ):
            for process in _processes(library, ask, handle):
                # One that does both is listed twice, with the same amount.
                found[process.pid] = process.usedGpuMemory
        held = [amount for pid, amount in found.items() if pid in pids]
        known = [amount for amount in held if amount is not None]
        return sum(known) if known and len(known) == len(held) else None

    def _warn(self, message: str) -> None:
        """Say *message*, the first time."""
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)


def _parts(library: Any, gpu: Handle) -> list[Handle]:
    """Return the instances that *gpu* is divided into, or itself."""
    try:
        mode, _ = library.nvmlDeviceGetMigMode(gpu)
    except library.NVMLError:
        return [gpu]
    if mode != library.NVML_DEVICE_MIG_ENABLE:
        return [gpu]
    found = []
    for index in range(library.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            found.append(library.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
        except library.NVMLError:
            continue  # as many as there could be are asked for
    return found


def _device(library: Any, handle: Handle, pci_id: str, kind: DeviceKind) -> Device:
    uuid, name = library.nvmlDeviceGetUUID(handle), library.nvmlDeviceGetName(handle)
    pool, total, free, note = uuid, 0, 0, ""
    try:
        memory = _memory(library, handle)
        total, free = memory.total, memory.free
    except library.NVMLError_NotSupported:
        total = 0
    except library.NVMLError as error:
        note = f"its memory is unknown: {error}"
    if not note and (not total or _UNIFIED.search(name)):
        pool, total, free, note = HOST, 0, 0, _SHARES_HOST
    return Device(
        id=uuid,
        pool=pool,
        kind=kind,
        name=name,
        total_bytes=total,
        free_bytes=free,
        pci_id=pci_id,
        note=note,
    )


def _memory(library: Any, handle: Handle) -> Any:
    """Ask the newer question first; drivers before 510 know only the other."""
    try:
        return library.nvmlDeviceGetMemoryInfo(handle, version=library.nvmlMemory_v2)
    except library.NVMLError:
        return library.nvmlDeviceGetMemoryInfo(handle)


def _processes(library: Any, ask: Callable[[Handle], list[Any]], handle: Handle) -> list[Any]:
    # Bindings that are newer than the driver raise an error that is none of NVML's.
    mismatch = getattr(library, "NVMLLibraryMismatchError", library.NVMLError)
    try:
        return ask(handle)
    except (library.NVMLError, mismatch):
        return []


def _pci_id(info: Any) -> str:
    """Return the address as ggml writes it; GPUs have one function."""
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"
