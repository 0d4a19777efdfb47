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
from llm_router_mw.memory.weights import place_weights
from llm_router_mw.types import HOST, Device, MeasuredMemory, MemoryEstimate, Model, Placement

logger = logging.getLogger("llm_router_mw.memory")

DRY_RUN_BYTES: Final = 768 * 1024**2
"""What the child takes of the host itself: for the state of recurrent layers, mostly."""
_COMMAND = (sys.executable, "-P", "-m", "llm_router_mw.worker.dry_run")
_SCALED_RESERVE = 0.25
"""Of compute buffers that were reckoned from fewer sequences."""
_LAST_WORDS = 300


class DryRunEstimator:
    """Runs one child at a time, and none twice for the same question."""

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

        Unless *always*, :meth:`estimate` leaves models to others whose arithmetic is known.
        """
        self._environ = dict(environ)
        self._costs = ExactCosts(overhead or BackendOverhead())
        self._files = files or ModelFiles()
        self._always = always
        self._command = command
        self._timeout_seconds = timeout_seconds
        self._lock = Lock()
        self._answers: Remembered[Hashable, DryRunAnswer] = Remembered(1024)

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate | None:
        """Return what *model* needs; None, and a line in the log, if that cannot be found out.

        None also if nobody has prepared it and the metadata say enough.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        file = self._files.read(model)
        asked = self._always or not file.shape.architecture.is_known
        memory = self._memory(file, model, placement, run=asked)
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

    def prepare(self, model: Model, placement: Placement) -> None:
        """Find out now, for the next :meth:`estimate`, what *model* needs in *placement*.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        self._memory(self._files.read(model), model, placement, run=True)

    def _memory(
        self, file: ModelFile, model: Model, placement: Placement, *, run: bool
    ) -> MeasuredMemory | None:
        key = (file.identity, model.options, placement, llama_build(self._environ))
        with self._lock:
            answer = self._answers.get(key)
            if answer is None and not run:
                return None
            if answer is None:
                order = DryRunOrder(path=model.path, options=model.options, placement=placement)
                answer = self._ask(order, model.id)
                if answer is None:
                    return None
                if answer.failure is not None:
                    logger.warning("no dry run of %s: %s", model.id, answer.failure.message)
                self._answers.put(key, answer)
        return answer.memory

    def _ask(self, order: DryRunOrder, name: str) -> DryRunAnswer | None:
        """Run a child; None if it went wrong in a way that may not repeat itself."""
        try:
            child = subprocess.run(
                self._command,
                input=msgspec.json.encode(order) + b"\n",
                capture_output=True,
                env=self._environ,
                timeout=self._timeout_seconds,
                check=True,
                start_new_session=True,  # Ctrl-C in the terminal is the router's business
            )
            return msgspec.json.decode(child.stdout, type=DryRunAnswer)
        except subprocess.CalledProcessError as error:
            words = error.stderr.decode(errors="replace").strip()[-_LAST_WORDS:]
            logger.warning("the dry run of %s died (%s): %s", name, error.returncode, words)
            # It would abort again.
            return DryRunAnswer() if error.returncode < 0 else None
        except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError) as error:
            logger.warning("the dry run of %s failed: %s", name, error)
            return None

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
