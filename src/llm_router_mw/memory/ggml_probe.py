"""GPUs as llama.cpp's own backends see them (Metal, Vulkan, ROCm, SYCL), asked in a child process.

To ask is to start the backends, which takes memory on the GPUs, and a driver may crash: the
router must do neither.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from threading import Lock

import msgspec
from msgspec import structs

from llm_router_mw.memory.amd import amd_memory
from llm_router_mw.protocols import Clock
from llm_router_mw.types import HOST, Device, DeviceKind

logger = logging.getLogger("llm_router_mw.memory")

_COMMAND = (sys.executable, "-P", "-m", "llm_router_mw.worker.devices")
_ASKED_ONCE = ("metal", "rpc")
"""Metal tells of the asking process only, so its answer never changes; a server in the network
answers one process at a time, and none but that of the model that is loaded there."""
_decoder = msgspec.json.Decoder(tuple[Device, ...])


class GgmlProbe:
    """Asks once, and again when the answer is old and may have changed."""

    name = "ggml"

    def __init__(
        self,
        environ: Mapping[str, str],
        backends: Set[DeviceKind],
        *,
        has_nvidia: Callable[[], bool] = lambda: False,
        command: Sequence[str] = _COMMAND,
        timeout_seconds: float = 30.0,
        max_age_seconds: float = 60.0,
        root: Path = Path("/"),
        clock: Clock = time.monotonic,
    ) -> None:
        """Ask with the variables *environ*, if *backends* hold one worth to be asked.

        CUDA's is not where NVML knows its GPUs (*has_nvidia*): that is quicker and knows more.
        """
        self._environ = dict(environ)
        self._backends = backends
        self._has_nvidia = has_nvidia
        self._command = command
        self._timeout_seconds = timeout_seconds
        self._max_age_seconds = max_age_seconds
        self._root = root
        self._clock = clock
        self._lock = Lock()
        self._found: tuple[Device, ...] = ()
        self._asked_at: float | None = None

    def inventory(self) -> Sequence[Device]:
        """Return the GPUs; where the system tells of AMD's memory, as it is now."""
        with self._lock:
            if self._is_due():
                self._found = self._ask()
                self._asked_at = self._clock()
            return [self._refreshed(device) for device in self._found]

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        """Return nothing: ggml knows of no other process."""
        return {}

    def _is_due(self) -> bool:
        if self._asked_at is None:
            return bool(self._backends - ({"cuda"} if self._has_nvidia() else set()))
        if self._clock() - self._asked_at < self._max_age_seconds:
            return False
        return any(each.kind not in _ASKED_ONCE and not self._is_live(each) for each in self._found)

    def _ask(self) -> tuple[Device, ...]:
        """Run the child; what was known before stands if that fails."""
        try:
            answer = subprocess.run(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environ,
                timeout=self._timeout_seconds,
                check=True,
                start_new_session=True,  # Ctrl-C in the terminal is the router's business
            )
            return _decoder.decode(answer.stdout)
        except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
            logger.warning(
                "llama.cpp's devices are unknown (%s); run '%s' to see why",
                error,
                " ".join(self._command),
            )
            return self._found

    def _is_live(self, device: Device) -> bool:
        return amd_memory(device.pci_id, self._root) is not None

    def _refreshed(self, device: Device) -> Device:
        memory = amd_memory(device.pci_id, self._root)
        if memory is None:
            return device
        # An integrated GPU has a part of its own, and may map a part of the host's memory.
        total, free = memory.with_mapped() if device.pool == HOST else memory.own()
        return structs.replace(device, total_bytes=total, free_bytes=free)
