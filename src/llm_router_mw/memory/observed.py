"""Prices a load by what the same load took before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from llm_router_mw.memory.buffers import MAPPED, costs_by_device
from llm_router_mw.memory.exact import ExactCosts
from llm_router_mw.memory.identity import llama_build
from llm_router_mw.memory.model_file import ModelFile, ModelFiles
from llm_router_mw.memory.observations import Observation, ObservationStore, default_folder
from llm_router_mw.memory.overhead import BackendOverhead
from llm_router_mw.types import (
    HOST,
    Cost,
    Device,
    MeasuredMemory,
    MemoryEstimate,
    Model,
    Placement,
)

_SPARE = 1.05
"""Part of what a process held beside its buffers that the next one may hold."""


class ObservedEstimator:
    """Remembers loads by their files, options, placement and build of llama.cpp."""

    name = "observed"

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path | None = None,
        *,
        overhead: BackendOverhead | None = None,
        files: ModelFiles | None = None,
    ) -> None:
        """Keep what is learned in *folder*; by default in the user's cache."""
        self._environ = dict(environ)
        self._store = ObservationStore(folder or default_folder(environ))
        self._overhead = overhead or BackendOverhead()
        self._costs = ExactCosts(self._overhead)
        self._files = files or ModelFiles()

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate | None:
        """Return what *model* took when it was loaded so; None if it never was.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        file = self._files.read(model)
        seen = self._store.get(self._key(file, model, placement))
        if seen is None:
            return None
        buffers = costs_by_device(seen.memory, placement, devices)
        if buffers is None:
            return None
        expected, upper = self._costs.complete(
            buffers, file, model, placement, devices, with_adapters=True
        )
        mapped = _mapped_bytes(seen.memory)
        for device in expected:
            held = _held_bytes(seen, device)
            known = expected[device].total_bytes
            if device == HOST:
                known -= mapped
                upper[device] = max(upper[device], int(held * _SPARE) + mapped)
            else:
                upper[device] = max(upper[device], int(held * _SPARE))
            if held > known:
                # Never less than the buffers say: not all of them need have been used yet.
                expected[device] = _with_more(expected[device], held - known)
        return MemoryEstimate(
            expected=expected,
            upper=upper,
            source=self.name,
            confidence="measured",
            soft_bytes=0 if model.options.use_mlock else mapped,
        )

    def record(
        self,
        model: Model,
        placement: Placement,
        memory: MeasuredMemory,
        devices: Sequence[Device],
        used_bytes: Mapping[str, int] = {},
    ) -> None:
        """Remember what a load of *model* took: *memory* by its own account.

        *used_bytes* is what probes say that its process holds, by device. May be called again when
        more was seen. Writes a file, so it is not for the event loop.

        Raises:
            ModelFileError: the model's file is missing.
        """
        if not memory.buffers:
            return
        file = self._files.read(model)
        seen = self._store.put(
            self._key(file, model, placement),
            Observation(memory=memory, used_bytes=dict(used_bytes)),
        )
        buffers = costs_by_device(memory, placement, devices) or {}
        for device, n_bytes in seen.used_bytes.items():
            if device != HOST and device in buffers:
                self._overhead.learn(device, n_bytes - buffers[device].total_bytes)

    def _key(self, file: ModelFile, model: Model, placement: Placement) -> str:
        where = structs.replace(placement, degraded=False)
        facts = (file.identity, model.options, where, llama_build(self._environ))
        return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def _mapped_bytes(memory: MeasuredMemory) -> int:
    return sum(each.weights_bytes for each in memory.buffers if each.buffer_type == MAPPED)


def _held_bytes(seen: Observation, device: str) -> int:
    """Return what the process was seen to hold of *device*, pages of mapped files aside."""
    used = seen.used_bytes.get(device, 0)
    return max(used, seen.memory.private_bytes) if device == HOST else used


def _with_more(cost: Cost, n_bytes: int) -> Cost:
    return structs.replace(cost, overhead_bytes=cost.overhead_bytes + n_bytes)
