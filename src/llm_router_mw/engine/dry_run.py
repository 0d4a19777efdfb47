"""A load that takes no memory: llama.cpp sizes every buffer and allocates almost none.

What it allocates after all is the state of recurrent layers, for each sequence. Where the system
lets it be, none of that is touched; where that is not possible and it would be much, few sequences
are tried and the rest is reckoned. llama.cpp may abort on a file that it does not like, so this is
for a process that nobody will miss.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from llm_router_mw.context_shape import context_shape
from llm_router_mw.engine.backends import devices
from llm_router_mw.engine.breakdown import BreakdownError, output_memory, read_breakdown
from llm_router_mw.engine.impossible import refuse_impossible
from llm_router_mw.engine.native import llama, log
from llm_router_mw.engine.parameters import context_parameters, model_parameters
from llm_router_mw.engine.untouched import untouched_memory
from llm_router_mw.errors import ModelLoadError, NotSupportedError
from llm_router_mw.types import BufferMemory, LoadOptions, MeasuredMemory, Placement

MAX_STATE_BYTES: Final = 640 * 1024 * 1024
"""State of recurrent layers that is really taken, unless two sequences have more."""
MAX_UNTOUCHED_BYTES: Final = 8 * 1024 * 1024 * 1024
"""State that is asked of the system, though never taken: it may refuse what it does not have."""
SCALED: Final = "reckoned from fewer sequences"
"""Note of an answer whose compute buffers are not exact."""
_CELLS: Final = 256
"""llama.cpp rounds contexts up to a multiple of it."""

Buffers = tuple[BufferMemory, ...]


def dry_run(path: str, options: LoadOptions, placement: Placement | None) -> MeasuredMemory:
    """Return what the model in *path* would hold if it were loaded so.

    Raises:
        ModelLoadError: llama.cpp refuses it.
        NotSupportedError: its answer cannot be read in this build.
    """
    log.install()
    llama.llama_backend_init()
    log.clear()
    try:
        with _dry_model(path, options, placement) as model:
            trial = _Trial(model, options, placement)
            buffers, note = trial.run()
    except BreakdownError as error:
        raise NotSupportedError(f"the memory of a dry run cannot be read: {error}") from error
    return MeasuredMemory(buffers=buffers, devices=devices(), note=note)


class _Trial:
    """Makes contexts of one model, with as many sequences as can be afforded."""

    def __init__(self, model: Any, options: LoadOptions, placement: Placement | None) -> None:
        self._model = model
        n_ctx_train = llama.llama_model_n_ctx_train(model)
        self._shape = context_shape(options, n_ctx_train)
        self._parameters = context_parameters(options, n_ctx_train, placement)
        self._n_ctx: int = self._parameters.n_ctx
        self._found: dict[tuple[int, bool], Buffers] = {}
        self._most_bytes = MAX_STATE_BYTES

    def run(self) -> tuple[Buffers, str]:
        """Return what each type of buffer holds, and a note."""
        wanted = self._shape.n_seq_max
        if wanted <= 2 or wanted * self._state_bytes() <= self._most_bytes:
            return self._buffers(wanted), ""
        return _extrapolated(self._buffers(1), self._buffers(2), wanted), SCALED

    def _state_bytes(self) -> int:
        """Return the state of one sequence, 0 where it is no sum of all tokens."""
        if not (
            llama.llama_model_is_recurrent(self._model) or llama.llama_model_is_hybrid(self._model)
        ):
            return 0
        # In a unified context another sequence takes no more cells: what grows is the state.
        one, two = (
            sum(each.context_bytes for each in self._buffers(count, unified=True))
            for count in (1, 2)
        )
        return two - one

    def _buffers(self, n_seq_max: int, *, unified: bool = False) -> Buffers:
        """Return what a context of so many sequences holds; none is made twice."""
        key = n_seq_max, self._shape.kv_unified or unified
        if key not in self._found:
            self._found[key] = self._measured(*key)
        return self._found[key]

    def _measured(self, n_seq_max: int, unified: bool) -> Buffers:
        shape, parameters = self._shape, self._parameters
        parameters.n_seq_max = n_seq_max
        parameters.kv_unified = unified
        parameters.n_ctx = self._n_ctx
        if not unified and n_seq_max != shape.n_seq_max:
            # Each sequence keeps the part of the context that it has among all of them.
            cells = self._n_ctx // shape.n_seq_max
            parameters.n_ctx = (cells + -cells % _CELLS) * n_seq_max
        with untouched_memory.offered() as untouched:
            context = llama.llama_init_from_model(self._model, parameters)
        if not context:
            raise _refusal("create the context")
        if untouched:
            self._most_bytes = MAX_UNTOUCHED_BYTES
        try:
            output = output_memory(context, self._model, shape)
            return (*read_breakdown(context, self._model), output)
        finally:
            llama.llama_free(context)


@contextmanager
def _dry_model(path: str, options: LoadOptions, placement: Placement | None) -> Iterator[Any]:
    parameters = model_parameters(options, placement)
    parameters.no_alloc = True
    # Anything else aborts: there is nothing to be mapped.
    parameters.load_mode = llama.LLAMA_LOAD_MODE_NONE
    model = llama.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise _refusal("load the model")
    try:
        refuse_impossible(model, options)
        yield model
    finally:
        llama.llama_model_free(model)


def _refusal(what: str) -> ModelLoadError:
    return ModelLoadError(
        f"in a dry run llama.cpp could not {what}: {log.last_errors() or 'it gave no reason'}"
    )


def _extrapolated(one: Buffers, two: Buffers, count: int) -> Buffers:
    """Return the buffers of *count* sequences: each grows from the second on as to the second."""
    grown = []
    for first, second in zip(one, two, strict=True):
        context = first.context_bytes, second.context_bytes
        compute = first.compute_bytes, second.compute_bytes
        grown.append(
            BufferMemory(
                buffer_type=first.buffer_type,
                device=first.device,
                weights_bytes=first.weights_bytes,
                context_bytes=_extended(*context, count),
                compute_bytes=_extended(*compute, count),
            )
        )
    return tuple(grown)


def _extended(one: int, two: int, count: int) -> int:
    return one + max(0, two - one) * (count - 1)
