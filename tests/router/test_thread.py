"""A router on a thread of its own: started once, stopped once, whoever asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, TracebackType
from typing import Any, cast

import anyio
import pytest

from llm_router_mw.errors import ConfigError, RouterNotRunningError
from llm_router_mw.protocols import StartableRouter
from llm_router_mw.router import RouterThread
from tests.support.waiting import until


class Switch:
    """A router that only knows whether it is on."""

    def __init__(self) -> None:
        self.entered = 0
        self.left = 0
        self.error: Exception | None = None
        self.slow_exit: threading.Event | None = None
        self.thread_name = ""

    @property
    def running(self) -> bool:
        return self.entered > self.left

    async def __aenter__(self) -> Switch:
        if self.error is not None:
            raise self.error
        assert not self.running
        self.entered += 1
        self.thread_name = threading.current_thread().name
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.slow_exit is not None:
            await anyio.to_thread.run_sync(self.slow_exit.wait)
        self.left += 1


def thread_of(switch: Switch) -> RouterThread:
    return RouterThread(cast("StartableRouter", switch))


@pytest.fixture
def switch() -> Switch:
    return Switch()


async def answer(value: int) -> int:
    return value


def test_it_starts_once_and_stops_once(switch: Switch) -> None:
    thread = thread_of(switch)
    thread.start()
    portal = thread.portal
    thread.start()
    assert thread.portal is portal
    assert switch.thread_name == "llm-router"
    assert thread.call(answer, 5) == 5
    thread.stop()
    thread.stop()
    assert (switch.entered, switch.left) == (1, 1)
    assert not any(each.name == "llm-router" for each in threading.enumerate())


def test_before_the_start_and_after_the_stop_there_is_no_way_in(switch: Switch) -> None:
    thread = thread_of(switch)
    with pytest.raises(RouterNotRunningError, match="not been started"):
        _ = thread.portal
    thread.start()
    portal = thread.portal
    thread.stop()
    with pytest.raises(RouterNotRunningError, match="not been started"):
        thread.call(answer, 5)
    thread._run.portal = portal  # as a caller sees it that asked for it just before the stop
    with pytest.raises(RouterNotRunningError, match="not running"):
        thread.call(answer, 5)


def test_a_call_from_the_loop_itself_is_refused(switch: Switch) -> None:
    thread = thread_of(switch)
    thread.start()

    async def call_again() -> int:
        return thread.call(answer, 5)

    with pytest.raises(RouterNotRunningError, match="from the event loop thread"):
        thread.call(call_again)
    thread.stop()


def test_a_failed_start_raises_what_the_router_raised_and_can_be_retried(switch: Switch) -> None:
    thread = thread_of(switch)
    switch.error = ConfigError("no such directory")
    with pytest.raises(ConfigError, match="no such directory"):
        thread.start()
    assert not any(each.name == "llm-router" for each in threading.enumerate())
    switch.error = None
    thread.start()
    assert switch.running
    thread.stop()


def test_it_can_be_started_again(switch: Switch) -> None:
    thread = thread_of(switch)
    for _ in range(2):
        thread.start()
        thread.stop()
    assert (switch.entered, switch.left) == (2, 2)


def test_of_many_that_start_it_at_once_one_does(switch: Switch) -> None:
    thread = thread_of(switch)
    barrier = threading.Barrier(4)

    def start() -> int:
        barrier.wait(10)
        thread.start()
        return thread.call(answer, 1)

    with ThreadPoolExecutor(4) as pool:
        assert [future.result(20) for future in [pool.submit(start) for _ in range(4)]] == [1] * 4
    assert switch.entered == 1
    thread.stop()


def test_a_start_waits_until_the_stop_before_it_is_complete(switch: Switch) -> None:
    thread = thread_of(switch)
    thread.start()
    switch.slow_exit = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        stopping = pool.submit(thread.stop)
        while thread._run.portal is not None:  # the stop has begun
            stopping.running()
        starting = pool.submit(thread.start)
        assert not starting.done()
        switch.slow_exit.set()
        stopping.result(20)
        starting.result(20)  # the switch itself asserts that it was off
    assert (switch.entered, switch.left) == (2, 1)
    thread.stop()


def test_a_call_that_is_under_way_does_not_hold_up_the_stop(switch: Switch) -> None:
    thread = thread_of(switch)
    thread.start()
    waiting = threading.Event()

    async def wait() -> None:
        waiting.set()
        await anyio.sleep_forever()

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(thread.call, wait)
        assert waiting.wait(10)
        thread.stop()
        with pytest.raises(RouterNotRunningError, match="meanwhile"):
            call.result(10)
    assert switch.left == 1


def functions_of(thread: int) -> list[str]:
    """Return the names of the functions that *thread* is in, the innermost last."""
    frame: FrameType | None = sys._current_frames()[thread]
    names: list[str] = []
    while frame is not None:
        names.insert(0, frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_an_interrupted_call_is_cancelled(switch: Switch) -> None:
    thread = thread_of(switch)
    thread.start()
    cancelled = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    async def wait() -> None:
        try:
            await until(lambda: functions_of(main)[-3:] == ["call", "result", "wait"])
            signal.pthread_kill(main, signal.SIGUSR1)
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    def interrupt(number: int, frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.call(wait)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert cancelled.wait(10)
    thread.stop()


def test_a_router_that_runs_elsewhere_is_refused(switch: Switch) -> None:
    switch.entered = 1
    with pytest.raises(RouterNotRunningError, match="started elsewhere"):
        thread_of(switch).start()


def test_a_loop_that_cannot_be_made_is_told_to_the_starter(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(anyio, "run", fail)
    with pytest.raises(OSError, match="too many open files"):
        thread_of(switch).start()


FORKING = """
import os, sys, threading
from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.router import RouterThread

class Quiet:
    running = False
    async def __aenter__(self):
        self.running = True
    async def __aexit__(self, *error):
        self.running = False

async def answer():
    return 5

mine = RouterThread(Quiet())
mine.start()
other = RouterThread(Quiet())
held, done = threading.Event(), threading.Event()

def hold():  # as a start or a stop that is under way when the process forks
    with mine._run.lock:
        held.set()
        done.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    for use in (mine.start, lambda: mine.portal, lambda: mine.call(answer)):
        try:
            use()
        except RouterNotRunningError:
            print("refused", flush=True)
    mine.stop()
    own = RouterThread(Quiet())
    for thread in (own, other):
        thread.start()
        print(thread.call(answer), flush=True)
    sys.exit(0)
status = os.waitpid(child, 0)[1]
done.set()
holder.join()
print("child", os.waitstatus_to_exitcode(status), "parent", mine.call(answer), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_no_part_in_the_parents_thread_and_ends_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    assert done.stdout.splitlines() == ["refused"] * 3 + ["5"] * 2 + ["child 0 parent 5"]


def test_the_end_of_the_interpreter_stops_the_router() -> None:
    script = """
from llm_router_mw.router import RouterThread

class Loud:
    running = False
    async def __aenter__(self):
        print("started", flush=True)
    async def __aexit__(self, *error):
        print("closed", flush=True)

RouterThread(Loud()).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=40, check=True
    )
    assert done.stdout.split() == ["started", "closed"]
