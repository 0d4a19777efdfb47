from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Iterator

import pytest
from rich.logging import RichHandler

from llm_router_mw.cli import log

NAMES = ("llm_router_mw", "uvicorn.error", "uvicorn.access")


@pytest.fixture(autouse=True)
def restored_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give back the root's handlers (the test runner's own among them) and all levels."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    # A server that was run in this process has handlers of its own.
    for name in ("uvicorn", *NAMES):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    levels = {name: logging.getLogger(name).level for name in NAMES}
    yield
    root.setLevel(level)
    for name in NAMES:
        logging.getLogger(name).setLevel(levels[name])
    logging.getLogger("uvicorn.error").filters.clear()


def test_an_event_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    logging.getLogger("llm_router_mw.router").info("%s was evicted", "guide")
    time, level, message = capsys.readouterr().err.split(maxsplit=2)
    assert len(time.split(":")) == 3
    assert level == "INFO"
    assert message == "guide was evicted\n"


def test_details_and_requests_are_told_only_if_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def say_all() -> str:
        logging.getLogger("llm_router_mw").debug("a detail")
        logging.getLogger("uvicorn.access").info("a request")
        logging.getLogger("another.library").info("noise")
        return capsys.readouterr().err

    log.configure()
    assert say_all() == ""
    log.configure(verbose=True)
    told = say_all()
    assert "a detail" in told
    assert "a request" in told
    assert "noise" not in told


def test_answers_that_are_cut_off_at_the_end_leave_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure()
    server = logging.getLogger("uvicorn.error")
    server.error("Exception in ASGI application", exc_info=CancelledError())
    assert capsys.readouterr().err == ""
    server.error("Exception in ASGI application", exc_info=ValueError("a fault"))
    assert "a fault" in capsys.readouterr().err


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log.configure()
    [handler] = logging.getLogger().handlers
    assert isinstance(handler, RichHandler)


def test_a_terminal_is_told_time_and_level_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log.configure()
    [handler] = logging.getLogger().handlers
    record = logging.makeLogRecord({"name": "llm_router_mw", "levelno": 20, "msg": "evicted"})
    assert handler.format(record) == "evicted"
