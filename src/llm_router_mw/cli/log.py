"""Logging of the commands: one readable line per event, on stderr."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

_TIME_FORMAT = "%H:%M:%S"


def configure(*, verbose: bool = False) -> None:
    """Send the package's and the server's logs to stderr, coloured only on a terminal.

    *verbose* adds debug lines and one line per HTTP request.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[_handler()], force=True)
    logging.getLogger("llm_router_mw").setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _handler() -> logging.Handler:
    if not sys.stderr.isatty():
        plain = logging.StreamHandler()
        plain.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", _TIME_FORMAT)
        )
        return plain
    handler = RichHandler(
        console=Console(stderr=True),
        log_time_format=_TIME_FORMAT,
        omit_repeated_times=False,
        show_path=False,
    )
    # It shows time and level in columns of its own; without this, basicConfig adds them again.
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out the tracebacks of answers that were cut off at the end: a line before tells it."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "CancelledError"
