"""LoRA adapters: loaded with a model, weighted anew for each step."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterable
from typing import Any

from llm_router_mw.engine.native import llama, log
from llm_router_mw.errors import InvalidRequestError, ModelFileError, ModelLoadError
from llm_router_mw.types import LoraAdapter


class Adapters:
    """The adapters of one model. llama.cpp frees them with it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._pointers: list[Any] = []
        self.defaults: tuple[float, ...] = ()
        """Scales with which they were loaded."""

    def load(self, adapters: Iterable[LoraAdapter]) -> None:
        """Load *adapters*, in the order in which requests number them.

        Raises:
            ModelFileError: a file is missing or cannot be read.
            ModelLoadError: it is no adapter for this model.
        """
        for adapter in adapters:
            self._pointers.append(_load(self._model, adapter.path))
            self.defaults += (adapter.scale,)

    def scales(self, wanted: Iterable[tuple[int, float]] | None) -> tuple[float, ...]:
        """Return a scale per adapter: those of *wanted*, 0 for the others; None: the defaults.

        Raises:
            InvalidRequestError: there is no such adapter, or a scale is no number.
        """
        if wanted is None:
            return self.defaults
        scales = [0.0] * len(self.defaults)
        for number, scale in wanted:
            if not 0 <= number < len(scales):
                raise InvalidRequestError(
                    f"lora names adapter {number}; this model has {len(scales)}, numbered from 0",
                    param="lora",
                )
            if not math.isfinite(scale):
                raise InvalidRequestError(f"lora has the scale {scale}", param="lora")
            scales[number] = scale
        return tuple(scales)

    def apply(self, context: Any, scales: tuple[float, ...]) -> None:
        """Let *context* work with the adapters at *scales*."""
        count = len(self._pointers)
        pointers = (llama.llama_adapter_lora_p_ctypes * count)(*self._pointers)
        floats = (ctypes.c_float * count)(*scales)
        llama.llama_set_adapters_lora(context, pointers, count, floats)


def _load(model: Any, path: str) -> Any:
    # Clients see these messages, and need not know where files lie.
    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise ModelFileError(
            f"the LoRA adapter {name!r} does not exist; check the model's load option lora"
        )
    if not os.access(path, os.R_OK):
        raise ModelFileError(f"the LoRA adapter {name!r} cannot be read; check its permissions")
    log.clear()
    pointer = llama.llama_adapter_lora_init(model, os.fsencode(path))
    if not pointer:
        reason = log.last_errors() or "it gave no reason"
        raise ModelLoadError(
            f"llama.cpp could not load the LoRA adapter {name!r}: {reason.replace(path, name)}",
            out_of_memory=log.tells_of_shortage,
        )
    if llama.llama_adapter_get_alora_n_invocation_tokens(pointer):
        raise ModelLoadError(
            f"the LoRA adapter {name!r} is one that certain tokens switch on (aLoRA), which is "
            "not supported; leave it out of the model's load option lora"
        )
    return pointer
