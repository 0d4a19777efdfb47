"""The bindings of llama.cpp, and its log."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from llama_cpp import llama_cpp as _bindings

from llm_router_mw.shortage import tells_of_shortage

# The bindings annotate values but not the calls; Any keeps every use from needing a cast.
llama: Final[Any] = _bindings

_WARNING, _ERROR, _CONTINUED = 3, 4, 5
_STDERR = 2


class NativeLog:
    """The last warnings and errors of llama.cpp, for messages; also passed on to stderr.

    The logger of llama.cpp is one per process, and so is this: see :data:`log`.
    """

    def __init__(self, size: int = 32) -> None:
        self._lines: deque[tuple[int, str]] = deque(maxlen=size)
        self._open = False
        self.muted = False
        """While this is set nothing is taken: what went wrong was wanted so."""
        self._ignored: bytes | None = None
        # Kept, because llama.cpp holds only a bare pointer to it.
        self._callback = llama.llama_log_callback(self.take)

    def install(self) -> None:
        """Make llama.cpp log here."""
        llama.llama_log_set(self._callback, ctypes.c_void_p(0))

    def clear(self) -> None:
        """Forget what was logged so far."""
        self._lines.clear()

    @property
    def tells_of_shortage(self) -> bool:
        """Whether anything was logged, since the last :meth:`clear`, of memory that was lacking."""
        return any(tells_of_shortage(text) for _, text in self._lines)

    def last_errors(self, count: int = 3) -> str:
        """Return the last *count* error lines, or nothing if there were none."""
        errors = [text.strip() for level, text in self._lines if level == _ERROR]
        return "; ".join([text for text in errors if text][-count:])

    @contextmanager
    def ignoring(self, part: bytes) -> Iterator[None]:
        """Take no lines meanwhile that *part* is in: what they tell of was wanted so."""
        self._ignored = part
        try:
            yield
        finally:
            self._ignored = None

    def take(self, level: int, text: bytes, _: object) -> None:
        """Take what llama.cpp logs; called by it, in whatever thread it is."""
        if self.muted or (self._ignored is not None and self._ignored in text):
            return
        if level == _CONTINUED:
            if self._open and self._lines:
                last_level, last = self._lines[-1]
                self._lines[-1] = (last_level, last + text.decode(errors="replace"))
                os.write(_STDERR, text)
            return
        self._open = level in (_WARNING, _ERROR)
        if self._open:
            self._lines.append((level, text.decode(errors="replace")))
            os.write(_STDERR, text)


log: Final = NativeLog()
