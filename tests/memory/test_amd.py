"""AMD's driver tells of the GPU's own memory and of what it may map of the host's."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.memory.amd import amd_memory
from tests.support.kernel_files import GIB, write

FOLDER = "sys/bus/pci/devices/0000:c1:00.0"
OWN = {f"{FOLDER}/mem_info_vram_total": 24 * GIB, f"{FOLDER}/mem_info_vram_used": 4 * GIB}
MAPPED = {f"{FOLDER}/mem_info_gtt_total": 64 * GIB, f"{FOLDER}/mem_info_gtt_used": 1 * GIB}


def test_its_own_memory_and_what_it_may_map(tmp_path: Path) -> None:
    memory = amd_memory("0000:c1:00.0", write(tmp_path, OWN | MAPPED))
    assert memory is not None
    assert memory.own() == (24 * GIB, 20 * GIB)
    assert memory.with_mapped() == (88 * GIB, 83 * GIB)


def test_a_driver_that_maps_nothing(tmp_path: Path) -> None:
    memory = amd_memory("0000:c1:00.0", write(tmp_path, OWN))
    assert memory is not None
    assert memory.with_mapped() == memory.own()


@pytest.mark.parametrize("pci_id", ["0000:01:00.0", "", "..", "0000:c1:00.0/../0000:c1:00.0"])
def test_it_is_known_of_amds_gpus_only(tmp_path: Path, pci_id: str) -> None:
    assert amd_memory(pci_id, write(tmp_path, OWN)) is None
