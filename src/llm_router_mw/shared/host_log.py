"""The log of a host: a file that never grows without bound."""

from __future__ import annotations

import logging
import logging.handlers
import os
from contextlib import suppress
from pathlib import Path

_LOG_BYTES = 4 * 1024 * 1024
"""Twice as much at most: the file before is kept, too."""
_TAIL_BYTES = 4096
_STANDARD_OUTPUTS = (1, 2)


def fresh_log(path: Path) -> int:
    """Return a descriptor of an empty log at *path*; the one before goes beside it."""
    with suppress(FileNotFoundError):
        path.replace(_before(path))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def last_lines(path: Path) -> str:
    """Return the end of the log at *path*, as far as it can be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            return log.read().decode(errors="replace").strip()
    except OSError as error:
        return f"(its log cannot be read: {error})"


def configure(path: Path) -> None:
    """Send this process' logs to *path*, where its standard output and error go already."""
    handler = _Handler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("llm_router_mw").setLevel(logging.INFO)
    logging.captureWarnings(True)


def _before(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


class _Handler(logging.handlers.RotatingFileHandler):
    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_LOG_BYTES, backupCount=1)

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        """Whether the file is full, and still ours: a host that makes way leaves it to the next."""
        return self._is_ours() and bool(super().shouldRollover(record))

    def _is_ours(self) -> bool:
        assert self.stream is not None
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self.stream.fileno()), os.stat(self.baseFilename))
        return False

    def doRollover(self) -> None:
        """Begin a new file, for what is written past the logging too."""
        super().doRollover()
        assert self.stream is not None
        for descriptor in _STANDARD_OUTPUTS:
            os.dup2(self.stream.fileno(), descriptor)
