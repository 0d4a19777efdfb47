"""What this process holds, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import os
import sys

from llm_router_mw.memory.processes import process_memory


def private_bytes() -> int | None:
    """Return the memory of this process that is no clean page of a file; None if unknown."""
    memory = process_memory(os.getpid())
    return None if memory is None else memory.private_bytes


def give_back() -> None:
    """Return freed memory to the system.

    The C library keeps a part of what was freed for the next one who asks: nobody will.
    """
    # Other C libraries, and that of other systems, have nothing to be told.
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
