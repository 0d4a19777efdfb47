"""A worker process from outside: what it may see, what it says, how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from llm_router_mw.protocols import ExitReport
from llm_router_mw.router import process
from llm_router_mw.router.process import WorkerProcess, describe_exit, last_line, worker_environment
from tests.router.conftest import ScriptedWorkers


@pytest.fixture(autouse=True)
def short_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests read no log, so there is no end of it to wait for."""
    monkeypatch.setattr(process, "_LAST_WORDS_SECONDS", 0.01)


@asynccontextmanager
async def spawned() -> AsyncIterator[WorkerProcess]:
    worker = await WorkerProcess.spawn()
    try:
        yield worker
    finally:
        worker.kill()
        await worker.wait()
        await worker.aclose()


def test_a_worker_sees_what_it_needs_and_no_secrets() -> None:
    kept = worker_environment(
        {
            "PATH": "/bin",
            "LC_ALL": "C",
            "CUDA_VISIBLE_DEVICES": "0",
            "OMP_NUM_THREADS": "2",
            "LLAMA_ARG_RPC": "10.0.0.7:50052",
            "LLAMA_ARG_API_KEY": "secret",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "DATABASE_URL": "secret",
            "OPENAI_API_KEY": "secret",
        }
    )
    assert "secret" not in kept.values()
    assert set(kept) == {
        "PATH",
        "LC_ALL",
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "LLAMA_ARG_RPC",
        "PYTHONPATH",
    }


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (ExitReport(exit_code=None), "never started"),
        (ExitReport(exit_code=0), "exited with code 0"),
        (ExitReport(exit_code=1, log_tail="a\nthe reason\n"), "exited with code 1"),
        (ExitReport(exit_code=-9), "was ended by signal SIGKILL"),
        (ExitReport(exit_code=-250), "was ended by signal 250"),
        (ExitReport(exit_code=-9, offence="was stuck"), "was stuck and was ended"),
    ],
)
def test_an_end_is_told_in_words(report: ExitReport, words: str) -> None:
    assert describe_exit(report) == words


@pytest.mark.parametrize(
    ("log", "line"), [("", ""), ("a\n", "a"), ("a\nthe reason\n", "the reason")]
)
def test_the_last_line_is_told_apart(log: str, line: str) -> None:
    assert last_line(ExitReport(exit_code=1, log_tail=log)) == line


@pytest.mark.asyncio
async def test_a_real_worker_has_none_of_our_secrets_and_a_session_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_APP_TOKEN", "do-not-leak")
    async with spawned() as worker:
        environ = await anyio.Path(f"/proc/{worker.pid}/environ").read_bytes()
        assert b"PATH=" in environ
        assert b"do-not-leak" not in environ
        assert os.getsid(worker.pid) == worker.pid
        assert not worker.exited


@pytest.mark.asyncio
async def test_the_last_lines_are_kept_for_the_report(
    scripted: ScriptedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_LOG_LINES", 2)
    scripted("""
for line in ("one", "two", "thr\\xe9e"):
    print(line, file=sys.stderr, flush=True)
os.write(2, b"half a line")
sys.exit(3)
""")
    async with spawned() as worker:
        lines = [line async for line in worker.read_log()]
        report = await worker.wait()
    assert lines == ["one", "two", "thrée", "half a line"]
    assert report == ExitReport(exit_code=3, log_tail="thrée\nhalf a line")


@pytest.mark.asyncio
async def test_a_line_that_does_not_end_is_cut(scripted: ScriptedWorkers) -> None:
    scripted("os.write(2, b'.' * 200_000)")
    async with spawned() as worker:
        lines = [line async for line in worker.read_log()]
    assert "".join(lines) == "." * 200_000
    assert len(lines) > 1


@pytest.mark.asyncio
async def test_the_report_does_not_wait_for_a_log_that_nobody_ends(
    scripted: ScriptedWorkers,
) -> None:
    scripted("print('unread', file=sys.stderr)")
    async with spawned() as worker:
        with anyio.fail_after(20):
            assert await worker.wait() == ExitReport(exit_code=0)
        # What is gone can be ended again.
        worker.terminate()
        worker.kill()
        assert worker.exited


@pytest.mark.asyncio
async def test_what_is_sent_arrives_and_comes_back(scripted: ScriptedWorkers) -> None:
    scripted("os.write(1, os.read(0, 100))")
    async with spawned() as worker:
        await worker.send(b"hello")
        assert b"".join([data async for data in worker.receive()]) == b"hello"


@pytest.mark.asyncio
async def test_terminating_is_milder_than_killing(scripted: ScriptedWorkers) -> None:
    scripted("signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); send(1); time.sleep(60)")
    async with spawned() as worker:
        async for _ in worker.receive():
            worker.terminate()
        assert (await worker.wait()).exit_code == 5
    async with spawned() as worker:
        worker.kill()
        assert (await worker.wait()).exit_code == -signal.SIGKILL
