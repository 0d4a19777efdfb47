"""Memory of AMD's GPUs, as their Linux driver tells it in ``/sys``: now, and without a context."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")


class AmdMemory(Struct, frozen=True, kw_only=True):
    """Bytes of a GPU's own memory (VRAM), and of the host's that it may map (GTT)."""

    vram_total: int
    vram_used: int
    gtt_total: int = 0
    gtt_used: int = 0

    def own(self) -> tuple[int, int]:
        """Return total and free of its own memory."""
        return self.vram_total, max(0, self.vram_total - self.vram_used)

    def with_mapped(self) -> tuple[int, int]:
        """Return total and free of both kinds together."""
        total, free = self.own()
        return total + self.gtt_total, free + max(0, self.gtt_total - self.gtt_used)


def amd_memory(pci_id: str, root: Path = Path("/")) -> AmdMemory | None:
    """Return the memory of the GPU at *pci_id*; None if it is none of AMD's."""
    if not _ADDRESS.fullmatch(pci_id):
        return None
    folder = root / "sys/bus/pci/devices" / pci_id
    try:
        vram_total, vram_used = (_number(folder, f"vram_{what}") for what in ("total", "used"))
    except OSError:
        return None
    try:
        gtt_total, gtt_used = (_number(folder, f"gtt_{what}") for what in ("total", "used"))
    except OSError:
        gtt_total = gtt_used = 0
    return AmdMemory(
        vram_total=vram_total, vram_used=vram_used, gtt_total=gtt_total, gtt_used=gtt_used
    )


def _number(folder: Path, what: str) -> int:
    return int((folder / f"mem_info_{what}").read_text())
