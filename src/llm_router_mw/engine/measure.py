"""What a loaded instance holds, for the router to learn from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from llm_router_mw.context_shape import context_shape
from llm_router_mw.engine.backends import devices
from llm_router_mw.engine.breakdown import BreakdownError, output_memory, read_breakdown
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.model import LoadedModel
from llm_router_mw.memory.processes import process_memory, sizes
from llm_router_mw.types import LoadOptions, MeasuredMemory

_STATUS: Final = Path("/proc/self/status")


def measure(model: LoadedModel, context: Context, options: LoadOptions) -> MeasuredMemory:
    """Return what *model* and *context*, which was just made, will hold in this process.

    What the context has not touched yet counts as held: it was promised, and tokens will take it.
    """
    note = ""
    try:
        shape = context_shape(options, model.n_ctx_train)
        buffers = (
            *read_breakdown(context.pointer, model.pointer),
            output_memory(context.pointer, model.pointer, shape),
        )
    except BreakdownError as error:
        buffers, note = (), str(error)
    memory, untouched = process_memory(os.getpid()), context.untouched_bytes
    peak = _peak_bytes()
    return MeasuredMemory(
        buffers=buffers,
        devices=devices(),
        private_bytes=memory.private_bytes + untouched if memory is not None else 0,
        peak_bytes=peak + untouched if peak else 0,
        note=note,
    )


def _peak_bytes() -> int:
    try:
        return sizes(_STATUS.read_text()).get("VmHWM", 0)
    except OSError:
        return 0
