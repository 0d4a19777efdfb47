"""Prices a load by letting llama.cpp do it without memory, in a child process.

What it says of its buffers is exact. It takes part of a second and some memory of its own, so it is
asked when a model is registered, not when a request waits.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Hashable, Mapping, Sequence
from threading import Lock
from typing import Final

import msgspec
from msgspec import structs

from llm_router_mw.memory.buffers import PLAIN, costs_by_device
from llm_router_mw.memory.dry_run_order import DryRunAnswer, DryRunOrder
from llm_router_mw.memory.exact import ExactCosts
from llm_router_mw.memory.identity import llama_build
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.model_file import ModelFile, ModelFiles, Remembered
from llm_router_mw.memory.overhead import BackendOverhead
from llm_router_mw.memory.pools import by_pool
from llm_router_mw.memory.weights import place_weights
from llm_router_mw.types import HOST, Device, MeasuredMemory, MemoryEstimate, Model, Placement
from llm_router_mw.units import MIB

logger = logging.getLogger("llm_router_mw.memory")

HOST_BYTES: Final = 192 * MIB
"""What the child takes of the host itself: a vocabulary, mostly. Its buffers are not touched."""
GPU_BYTES: Final = 1024 * MIB
"""What it takes of a GPU: the driver's context, and the state of recurrent layers."""
_COMMAND = (sys.executable, "-P", "-m", "llm_router_mw.worker.dry_run")
_SCALED_RESERVE = 0.25
"""Of compute buffers that were reckoned from fewer sequences."""
_LAST_WORDS = 300


class DryRunEstimator:
    """Runs one child at a time, and none twice for the same question.

    An estimate is what has been prepared: whoever asks decides when there is time for a child, and
    memory. Safe to be used by several threads.
    """

    name = "dry-run"

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        overhead: BackendOverhead | None = None,
        files: ModelFiles | None = None,
        always: bool = False,
        command: Sequence[str] = _COMMAND,
        timeout_seconds: float = 30.0,
    ) -> None:
        """Run children with the variables *environ*, each for *timeout_seconds* at most.

        With *always* :meth:`estimate` runs one where nothing has been prepared.
        """
        self._environ = dict(environ)
        self._costs = ExactCosts(overhead or BackendOverhead())
        self._files = files or ModelFiles()
        self._always = always
        self._command = command
        self._timeout_seconds = timeout_seconds
        self._turn = Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_cut_short = False
        """Whether it was us who ended the child."""
        self._answers: Remembered[Hashable, DryRunAnswer] = Remembered(1024)

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate | None:
        """Return what *model* needs; None if nobody has prepared it, or it could not be found out.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        file = self._files.read(model)
        memory = self._memory(file, model, placement, devices, run=self._always)
        if memory is None:
            return None
        buffers = costs_by_device(memory, placement, devices)
        if buffers is None or placement.split_mode == "row":
            logger.warning("a dry run of %s does not tell which device holds what", model.id)
            return None
        soft = self._soft_bytes(file, model, placement, devices)
        # What would be mapped was sized as if it were read.
        read = sum(each.weights_bytes for each in memory.buffers if each.buffer_type == PLAIN)
        host = buffers[HOST]
        buffers[HOST] = structs.replace(
            host, weights_bytes=host.weights_bytes + max(0, soft - read)
        )
        expected, upper = self._costs.complete(
            buffers, file, model, placement, devices, with_adapters=True
        )
        if memory.note:
            for device, cost in expected.items():
                upper[device] += int(cost.compute_bytes * _SCALED_RESERVE)
        return MemoryEstimate(
            expected=expected,
            upper=upper,
            source=self.name,
            confidence="high" if memory.note else "exact",
            soft_bytes=soft,
            notes=(memory.note,) if memory.note else (),
        )

    def is_wanted(self, model: Model) -> bool:
        """Whether others know too little of *model*: its architecture is not known here.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        return not self._files.read(model).shape.architecture.is_known

    def is_prepared(self, model: Model, placement: Placement, devices: Sequence[Device]) -> bool:
        """Whether :meth:`prepare` has nothing to find out.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        return self._key(self._files.read(model), model, placement, devices) in self._answers

    def needs(self, placement: Placement, devices: Sequence[Device]) -> dict[str, int]:
        """Return by pool what :meth:`prepare` takes while it runs."""
        gpus = dict.fromkeys(placement.devices, GPU_BYTES)
        return by_pool({HOST: HOST_BYTES, **gpus}, devices)

    def prepare(self, model: Model, placement: Placement, devices: Sequence[Device]) -> None:
        """Find out now, for the next :meth:`estimate`, what *model* needs in *placement*.

        Takes part of a second, and as long as the timeout if something is wrong.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        self._memory(self._files.read(model), model, placement, devices, run=True)

    def cancel(self) -> None:
        """Let a child that runs end at once, with nothing found out."""
        self._is_cut_short = True
        child = self._child
        if child is not None:
            child.kill()

    def _memory(
        self,
        file: ModelFile,
        model: Model,
        placement: Placement,
        devices: Sequence[Device],
        *,
        run: bool,
    ) -> MeasuredMemory | None:
        key = self._key(file, model, placement, devices)
        answer = self._answers.get(key)
        if answer is None and run:
            self._is_cut_short = False
            with self._turn:
                # Somebody else may have asked the same.
                answer = self._answers.get(key) or self._found_out(key, model, placement)
        return None if answer is None else answer.memory

    def _key(
        self, file: ModelFile, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> Hashable:
        used = tuple(
            (each.id, each.backend_name, each.name, each.total_bytes)
            for each in devices
            if each.id in placement.devices
        )
        where = structs.replace(placement, degraded=False)
        return file.identity, model.options, where, used, llama_build(self._environ)

    def _found_out(self, key: Hashable, model: Model, placement: Placement) -> DryRunAnswer | None:
        order = DryRunOrder(path=model.path, options=model.options, placement=placement)
        answer = self._ask(order, model.id)
        if answer is None:
            return None
        if answer.failure is not None:
            logger.warning("no dry run of %s: %s", model.id, answer.failure.message)
        return self._answers.put(key, answer)

    def _ask(self, order: DryRunOrder, name: str) -> DryRunAnswer | None:
        """Run a child; None if it went wrong in a way that may not repeat itself."""
        try:
            status, said, words = self._run(msgspec.json.encode(order) + b"\n")
            if self._is_cut_short:
                return None
            if status != 0:
                logger.warning("the dry run of %s died (%s): %s", name, status, words)
                # It would abort again.
                return DryRunAnswer() if status < 0 else None
            return msgspec.json.decode(said, type=DryRunAnswer)
        except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
            logger.warning("the dry run of %s failed: %s", name, error)
            return None

    def _run(self, order: bytes) -> tuple[int, bytes, str]:
        """Return how a child ended that was given *order*, its answer, and its last words."""
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            start_new_session=True,  # Ctrl-C in the terminal is the router's business
        ) as child:
            self._child = child
            if self._is_cut_short:
                child.kill()
            try:
                said, words = child.communicate(order, timeout=self._timeout_seconds)
            finally:
                self._child = None
                child.kill()
        return child.returncode, said, words.decode(errors="replace").strip()[-_LAST_WORDS:]

    def _soft_bytes(
        self, file: ModelFile, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> int:
        """Return how much of the file would be mapped, which a dry run cannot do."""
        options = model.options
        if not options.use_mmap or options.use_mlock:
            return 0
        layers = place_layers(placement, devices, file.shape.n_layer_all)
        weights = place_weights(file.headers, file.shape, layers, placement, devices, options)
        return weights.mapped_bytes
