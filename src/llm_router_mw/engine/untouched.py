"""Lets llama.cpp make a context without touching all of its memory on the host.

llama.cpp writes zeros over a new KV cache. The system has to find each of its pages for that, and
to zero it too: with gigabytes that takes seconds, nearly all of what it takes to make a context.
But pages that nobody has touched are zero anyway. Here a cache is cleared by giving its pages back
to the system, and tokens take them as they come.

ggml has no setting for that. Its buffers are C structures that hold a function to clear them, and
it is replaced in those that are made meanwhile. Where it stands is not believed before it has been
tried on a buffer that holds nothing; if it is not there, all stays as llama.cpp has it.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

from llama_cpp._ggml import libggml

_POINTER: Final = ctypes.c_void_p
_MAPS: Final = Path("/proc/self/maps")
_WRITABLE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw")
_ALLOCATE_AT: Final = 1
"""Word of ``ggml_backend_buffer_type`` that is its ``alloc_buffer``."""
_CLEAR_AT: Final = 9
"""Word of ``ggml_backend_buffer`` that is its ``clear``."""
_TRIAL_BYTES: Final = 64
_TRIAL_VALUE: Final = 7

_Allocate = ctypes.CFUNCTYPE(_POINTER, _POINTER, ctypes.c_size_t)
_Clear = ctypes.CFUNCTYPE(None, _POINTER, ctypes.c_uint8)


def _function(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_host_buffers = _function(libggml, "ggml_backend_cpu_buffer_type", _POINTER)
_make = _function(libggml, "ggml_backend_buft_alloc_buffer", _POINTER, _POINTER, ctypes.c_size_t)
_base = _function(libggml, "ggml_backend_buffer_get_base", _POINTER, _POINTER)
_size = _function(libggml, "ggml_backend_buffer_get_size", ctypes.c_size_t, _POINTER)
_clear = _function(libggml, "ggml_backend_buffer_clear", None, _POINTER, ctypes.c_uint8)
_free = _function(libggml, "ggml_backend_buffer_free", None, _POINTER)


class UntouchedMemory:
    """Replaces how buffers on the host are cleared. One for the process, as ggml is."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._works: bool | None = None
        """None until it has been tried."""
        self._allocate_address = 0
        """Of ggml's own functions; set before ours can be called."""
        self._clear_address = 0
        self._made: int | None = None
        """The last buffer that was made."""
        self._asked: tuple[int, int] | None = None
        """The last buffer that was to be cleared, and the value."""
        self._untouched: list[int] = []
        # Kept for ever, since buffers hold bare pointers to them.
        self._own_allocate = _Allocate(self._allocate_buffer)
        self._own_clear = _Clear(self._clear_buffer)

    @contextmanager
    def offered(self, *, wanted: bool = True) -> Iterator[list[int]]:
        """Have what is made meanwhile cleared untouched, if *wanted* and possible.

        Yields:
            The sizes in bytes of what was.
        """
        with self._lock:
            if wanted and self._works is None:
                self._works = sys.platform == "linux" and self._try()
            untouched = self._untouched = []
            try:
                if wanted and self._works:
                    with self._replaced():
                        yield untouched
                else:
                    yield untouched
            finally:
                self._untouched = []

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        word = _word(_host_buffers(), _ALLOCATE_AT)
        self._allocate_address = word.value
        word.value = _address(self._own_allocate)
        try:
            yield
        finally:
            word.value = self._allocate_address

    def _try(self) -> bool:
        """Return whether ggml's structures are as they are thought to be."""
        if not _is_writable(_host_buffers()):
            return False
        self._made = self._asked = None
        with self._replaced():
            buffer = _make(_host_buffers(), _TRIAL_BYTES)
        if buffer is None:
            return False
        _clear(buffer, _TRIAL_VALUE)
        content = ctypes.string_at(_base(buffer), _TRIAL_BYTES)
        if self._made == buffer:
            # Whatever it is that stands there.
            _word(buffer, _CLEAR_AT).value = self._clear_address
        _free(buffer)
        as_thought = self._asked == (buffer, _TRIAL_VALUE)
        return as_thought and content == bytes([_TRIAL_VALUE]) * _TRIAL_BYTES

    def _allocate_buffer(self, buffer_type: int, size: int) -> int | None:
        """Make a buffer as ggml does; runs inside of ggml."""
        buffer: int | None = _Allocate(self._allocate_address)(buffer_type, size)
        if buffer is not None:
            self._made = buffer
            word = _word(buffer, _CLEAR_AT)
            self._clear_address = word.value
            word.value = _address(self._own_clear)
        return buffer

    def _clear_buffer(self, buffer: int, value: int) -> None:
        """Clear a buffer; runs inside of ggml."""
        self._asked = (buffer, value)
        base, size = _base(buffer), _size(buffer)
        if value == 0 and _forget_pages(base, size):
            self._untouched.append(size)
        else:
            _Clear(self._clear_address)(buffer, value)


untouched_memory: Final = UntouchedMemory()


def _word(structure: int, index: int) -> Any:
    return ctypes.c_size_t.from_address(structure + index * ctypes.sizeof(_POINTER))


def _address(function: Any) -> int:
    return ctypes.cast(function, _POINTER).value or 0


def _is_writable(address: int) -> bool:
    try:
        ranges = _WRITABLE.findall(_MAPS.read_text())
    except OSError:
        return False
    return any(int(start, 16) <= address < int(end, 16) for start, end in ranges)


@cache
def _madvise() -> Any:
    return _function(
        ctypes.CDLL(None), "madvise", ctypes.c_int, _POINTER, ctypes.c_size_t, ctypes.c_int
    )


def _forget_pages(base: int, size: int) -> bool:
    """Make *size* bytes at *base* zero without touching them; False: the system would not."""
    start = base + -base % mmap.PAGESIZE
    end = (base + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if start >= end:
        return False
    # Locked and other special memory is refused.
    if _madvise()(start, end - start, mmap.MADV_DONTNEED) != 0:
        return False
    ctypes.memset(base, 0, start - base)
    ctypes.memset(end, 0, base + size - end)
    return True
