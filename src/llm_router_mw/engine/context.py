"""The shared context of an instance: one batch of rows at a time, and the sequences' memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import numpy as np

from llm_router_mw.engine.abort import StepAbort
from llm_router_mw.engine.model import LoadedModel, Rewind
from llm_router_mw.engine.native import llama, log
from llm_router_mw.engine.parameters import context_parameters
from llm_router_mw.engine.untouched import untouched_memory
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.types import LoadOptions, Placement


class Context:
    """A ``llama_context`` and the batch that is filled for its next step.

    The arrays of the batch are made once and written in place: per token, nothing is allocated.
    """

    def __init__(
        self, model: LoadedModel, options: LoadOptions, placement: Placement | None = None
    ) -> None:
        """Make the context of *model*, as long as *placement* says if it says so.

        Raises:
            ModelLoadError: there is no room for it, or the model cannot work as asked.
        """
        parameters = context_parameters(options, model.n_ctx_train, placement)
        log.clear()
        with untouched_memory.offered(wanted=not options.touch_context) as untouched:
            self.pointer = llama.llama_init_from_model(model.pointer, parameters)
        if not self.pointer:
            raise ModelLoadError(
                "llama.cpp could not create the context: "
                f"{log.last_errors() or 'it gave no reason'}; a smaller n_ctx or n_batch needs "
                "less memory",
                out_of_memory=log.tells_of_shortage,
            )
        self.untouched_bytes = sum(untouched)
        """What it will take of the host's memory as tokens come, and has not taken yet."""
        self.unified = options.kv_unified
        self.n_cells: int = llama.llama_n_ctx(self.pointer)
        """Tokens of all sequences together."""
        self.n_ctx: int = llama.llama_n_ctx_seq(self.pointer)
        """Tokens of one sequence."""
        if model.positions_are_learned:
            self.n_ctx = min(self.n_ctx, model.n_ctx_train)
        self.n_batch: int = llama.llama_n_batch(self.pointer)
        self.n_parallel = options.n_parallel
        self._memory = llama.llama_get_memory(self.pointer)
        self.n_window = model.n_window
        self.rewind = model.rewind
        self._compute = llama.llama_encode if model.has_encoder else llama.llama_decode
        self.abort = StepAbort()
        self.abort.install(self.pointer)
        self.generates = bool(self._memory) and not model.has_encoder
        """Whether text can be generated: that takes a memory, and nothing to be encoded before."""
        self._make_batch()
        self._adapters = model.adapters
        self._scales = model.adapters.defaults
        self._adapters.apply(self.pointer, self._scales)

    def _make_batch(self) -> None:
        size = self.n_batch
        # Any: ctypes arrays take slices of plain numbers, which their annotations do not know.
        self._tokens: Any = (ctypes.c_int32 * size)()
        self._positions: Any = (ctypes.c_int32 * size)()
        self._sequences: Any = (ctypes.c_int32 * size)()
        self._outputs: Any = (ctypes.c_int8 * size)()
        counts = (ctypes.c_int32 * size)(*[1] * size)
        base, width = ctypes.addressof(self._sequences), ctypes.sizeof(ctypes.c_int32)
        pointer = ctypes.POINTER(ctypes.c_int32)
        addresses = [base + row * width for row in range(size)]
        rows = (pointer * size)(*[ctypes.cast(address, pointer) for address in addresses])
        self._batch = llama.llama_batch(
            0, self._tokens, None, self._positions, counts, rows, self._outputs
        )

    @property
    def n_rows(self) -> int:
        """Rows in the batch: those of the last step, until :meth:`clear`."""
        rows: int = self._batch.n_tokens
        return rows

    def clear(self) -> None:
        """Begin a new batch."""
        self._batch.n_tokens = 0

    def add(self, tokens: list[int], position: int, sequence: int, output: int) -> int:
        """Add a row per token of *sequence*, the first at *position*; return the last row.

        The last *output* rows give logits or embeddings.
        """
        start, size = self.n_rows, len(tokens)
        end = start + size
        self._tokens[start:end] = tokens
        self._positions[start:end] = list(range(position, position + size))
        self._sequences[start:end] = [sequence] * size
        self._outputs[start:end] = bytes(size - output) + b"\x01" * output
        self._batch.n_tokens = end
        return end - 1

    def adapter_scales(self, wanted: Iterable[tuple[int, float]] | None) -> tuple[float, ...]:
        """Return what :meth:`set_adapters` takes for a request that wants such scales.

        Raises:
            InvalidRequestError: there is no such adapter, or a scale is no number.
        """
        return self._adapters.scales(wanted)

    def set_adapters(self, scales: tuple[float, ...]) -> None:
        """Let the next steps work with the model's adapters at *scales*, one for each of them.

        Costs nothing where they are so already.
        """
        if scales != self._scales:
            self._adapters.apply(self.pointer, scales)
            self._scales = scales

    def compute(self) -> int:
        """Run the batch; return llama.cpp's code.

        0 is success, 1 no room, 2 aborted (see ``abort``), below 0 an error.
        """
        code: int = self._compute(self.pointer, self._batch)
        return code

    def remove(self, sequence: int) -> None:
        """Forget *sequence*."""
        if self._memory:
            llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def share(self, source: int, target: int, length: int) -> None:
        """Let the empty sequence *target* begin with the first *length* tokens of *source*.

        Within a unified context that costs nothing. A *length* of -1 is all of them.
        """
        llama.llama_memory_seq_cp(self._memory, source, target, 0 if length >= 0 else -1, length)

    def can_rewind(self, sequence: int, length: int) -> bool:
        """Whether *sequence* can be cut to *length* tokens and go on from there."""
        if self.rewind is Rewind.WINDOW:
            first: int = llama.llama_memory_seq_pos_min(self._memory, sequence)
            return first <= max(0, length - self.n_window)
        return self.rewind is Rewind.ANYWHERE

    def truncate(self, sequence: int, length: int) -> bool:
        """Forget all but the first *length* tokens of *sequence*; False if that is impossible."""
        return bool(llama.llama_memory_seq_rm(self._memory, sequence, length, -1))

    def last_position(self, sequence: int) -> int:
        """Return the position of the last token of *sequence*, -1 if it has none."""
        position: int = llama.llama_memory_seq_pos_max(self._memory, sequence)
        return position

    def shift(self, sequence: int, keep: int, discard: int) -> bool:
        """Forget *discard* tokens behind the first *keep*; the rest moves up. False: impossible."""
        if not llama.llama_memory_can_shift(self._memory):
            return False
        if not llama.llama_memory_seq_rm(self._memory, sequence, keep, keep + discard):
            return False
        llama.llama_memory_seq_add(self._memory, sequence, keep + discard, -1, -discard)
        return True

    def save(self, sequence: int) -> Any:
        """Return the state of *sequence* that cannot be rewound, None if there is none."""
        flags = llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        size = llama.llama_state_seq_get_size_ext(self.pointer, sequence, flags)
        state = (ctypes.c_uint8 * size)()
        saved = llama.llama_state_seq_get_data_ext(self.pointer, state, size, sequence, flags)
        return state if saved else None

    def restore(self, sequence: int, state: Any) -> bool:
        """Put back what :meth:`save` returned; False if there is no room for it."""
        flags = llama.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        return bool(
            llama.llama_state_seq_set_data_ext(self.pointer, state, len(state), sequence, flags)
        )

    def whole_bytes(self, sequence: int) -> int:
        """Return what :meth:`save_whole` writes for *sequence*."""
        size: int = llama.llama_state_seq_get_size_ext(self.pointer, sequence, 0)
        return size

    def save_whole(self, sequence: int, target: memoryview) -> bool:
        """Write all of the state of *sequence* to *target*; False: it failed.

        The state does not depend on the number of the sequence, nor on the size of the context.
        Cells that are shared with other sequences are written for each.
        """
        size = target.nbytes
        written: int = llama.llama_state_seq_get_data_ext(
            self.pointer, _address(target), size, sequence, 0
        )
        return written == size

    def restore_whole(self, sequence: int, source: memoryview) -> bool:
        """Replace *sequence* by what :meth:`save_whole` wrote.

        Returns False, and *sequence* is empty, where there are too few cells or the state is of
        another model or layout. The bytes must be such as were written: llama.cpp trusts them.
        """
        size = source.nbytes
        read: int = llama.llama_state_seq_set_data_ext(
            self.pointer, _address(source), size, sequence, 0
        )
        if read != size:
            self.remove(sequence)
        return read == size

    def embedding(self, sequence: int, length: int) -> list[float]:
        """Return *length* floats that the last step pooled for *sequence*."""
        values: list[float] = llama.llama_get_embeddings_seq(self.pointer, sequence)[:length]
        return values

    def warm_up(self, token: int) -> None:
        """Run one row, so that the first request finds weights read and buffers touched.

        Raises:
            ModelLoadError: the model loads but cannot compute.
        """
        llama.llama_set_warmup(self.pointer, True)
        code = self._compute_rows([token])
        llama.llama_set_warmup(self.pointer, False)
        if code == 0:
            # llama.cpp keeps the graph for the next batch of that shape, and this one runs all
            # experts: a batch of another shape makes it build a new one.
            code = self._compute_rows([token, token])
        llama.llama_synchronize(self.pointer)
        self.clear()
        if code != 0:
            raise ModelLoadError(
                f"llama.cpp loaded the model but cannot compute with it (code {code}): "
                f"{log.last_errors() or 'it gave no reason'}",
                out_of_memory=log.tells_of_shortage,
            )

    def _compute_rows(self, tokens: list[int]) -> int:
        self.clear()
        self.add(tokens, 0, 0, 1)
        code = self.compute()
        self.remove(0)
        return code

    def close(self) -> None:
        """Free the context."""
        llama.llama_free(self.pointer)


def _address(buffer: memoryview) -> Any:
    # Unlike what ctypes offers, numpy also takes buffers that are read-only.
    return np.frombuffer(buffer, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
