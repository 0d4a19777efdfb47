"""Routers on one machine take memory one after the other, and a dead one holds nothing up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_router_mw import runtime_directory
from llm_router_mw.memory.machine_lock import MachineLock

GPU, OTHER_GPU, HOST = "GPU-1", "0000:c1:00.0", "host"

ROUTER = """
import json, pathlib, sys
from llm_router_mw.memory.machine_lock import MachineLock
lock, holds = MachineLock(pathlib.Path(sys.argv[1])), []
for line in sys.stdin:
    verb, argument = json.loads(line)
    if verb == "hold":
        hold = lock.try_hold(argument)
        if hold is not None:
            holds.append(hold)
        answer = hold is not None
    elif verb == "pending":
        answer = lock.pending()
    elif verb == "arrive":
        answer = lock.arrive()
    elif verb == "forget":
        answer = holds.pop() and None
    else:
        answer = getattr(holds[-1], verb)(*([argument] if argument else []))
    print(json.dumps(answer), flush=True)
"""


class OtherRouter:
    """A second router: another process with a lock of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, verb: str, argument: object = None) -> object:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([verb, argument]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def started(directory: Path) -> Iterator[OtherRouter]:
    command = [sys.executable, "-c", ROUTER, str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield OtherRouter(process)
        finally:
            process.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "meet"


@pytest.fixture
def lock(directory: Path) -> MachineLock:
    return MachineLock(directory)


@pytest.fixture
def other(directory: Path) -> Iterator[OtherRouter]:
    with started(directory) as router:
        yield router


# Two routers


def test_a_pool_is_held_by_one_router_at_a_time(lock: MachineLock, other: OtherRouter) -> None:
    hold = lock.try_hold([GPU])
    assert hold is not None
    assert other.ask("hold", [GPU]) is False
    hold.release()
    assert other.ask("hold", [GPU]) is True
    assert lock.try_hold([GPU]) is None
    other.ask("release")
    assert lock.try_hold([GPU]) is not None


def test_different_pools_are_independent(lock: MachineLock, other: OtherRouter) -> None:
    assert lock.try_hold([GPU]) is not None
    assert other.ask("hold", [OTHER_GPU]) is True


def test_all_pools_are_taken_or_none(lock: MachineLock, other: OtherRouter) -> None:
    assert other.ask("hold", [HOST]) is True
    assert lock.try_hold([GPU, HOST]) is None
    assert other.ask("hold", [GPU]) is True  # which ours did not keep


def test_a_router_that_is_killed_holds_nothing(lock: MachineLock, other: OtherRouter) -> None:
    assert other.ask("hold", [GPU]) is True
    other.ask("reserve", {GPU: 5})
    assert lock.pending() == {GPU: 5}
    other.kill()
    assert lock.pending() == {}
    assert lock.try_hold([GPU]) is not None


def test_files_of_the_dead_are_removed(
    directory: Path, lock: MachineLock, other: OtherRouter
) -> None:
    other.ask("hold", [GPU])
    other.ask("reserve", {GPU: 5})
    assert len(list(directory.glob("*.reservation"))) == 1
    other.kill()
    lock.pending()
    assert list(directory.glob("*.reservation")) == []


def test_what_is_reserved_is_known_to_others_until_it_is_released(
    lock: MachineLock, other: OtherRouter
) -> None:
    other.ask("hold", [GPU, HOST])
    other.ask("reserve", {GPU: 30, HOST: 2})
    assert lock.pending() == {GPU: 30, HOST: 2}
    assert other.ask("pending") == {}  # its own is in its own ledger
    other.ask("reserve", {GPU: 20})  # less after all
    assert lock.pending() == {GPU: 20}
    other.ask("release")
    assert lock.pending() == {}


def test_reservations_of_all_others_are_summed(
    directory: Path, lock: MachineLock, other: OtherRouter
) -> None:
    other.ask("hold", [GPU])
    other.ask("reserve", {GPU: 30})
    other.ask("unlock")
    other.ask("hold", [GPU])
    other.ask("reserve", {GPU: 4})
    with started(directory) as third:
        third.ask("hold", [HOST])
        third.ask("reserve", {HOST: 7, GPU: 1})
        assert lock.pending() == {GPU: 35, HOST: 7}


def test_a_pool_may_be_given_up_before_the_reservation(
    lock: MachineLock, other: OtherRouter
) -> None:
    other.ask("hold", [GPU])
    other.ask("reserve", {GPU: 30})
    other.ask("unlock")
    assert lock.try_hold([GPU]) is not None
    assert lock.pending() == {GPU: 30}
    other.ask("release")
    assert lock.pending() == {}


# One router


def test_holds_of_one_router_do_not_exclude_each_other(
    lock: MachineLock, other: OtherRouter
) -> None:
    first, second = lock.try_hold([GPU]), lock.try_hold([HOST, GPU])
    assert first is not None
    assert second is not None
    first.release()
    assert other.ask("hold", [GPU]) is False
    second.release()
    assert other.ask("hold", [GPU, HOST]) is True


def test_a_hold_that_failed_takes_nothing_from_another_of_the_same_router(
    lock: MachineLock, other: OtherRouter
) -> None:
    other.ask("hold", [HOST])
    held = lock.try_hold([GPU])
    assert held is not None
    assert lock.try_hold([GPU, HOST]) is None
    other.ask("release")
    assert other.ask("hold", [GPU]) is False


def test_two_routers_in_one_process_are_two(directory: Path, lock: MachineLock) -> None:
    second = MachineLock(directory)
    hold = lock.try_hold([GPU])
    assert hold is not None
    hold.reserve({GPU: 5})
    assert second.try_hold([GPU]) is None
    assert second.pending() == {GPU: 5}
    assert lock.pending() == {}


def test_a_hold_ends_with_its_block_and_ends_once(directory: Path, lock: MachineLock) -> None:
    hold = lock.try_hold([GPU])
    assert hold is not None
    with hold:
        hold.reserve({GPU: 5})
    hold.release()
    assert MachineLock(directory).try_hold([GPU]) is not None
    assert [file.name for file in directory.iterdir()] == ["GPU-1.lock"]


def test_what_cannot_be_removed_counts_no_longer(
    directory: Path, lock: MachineLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError("the disk is read-only")

    hold = lock.try_hold([GPU])
    assert hold is not None
    hold.reserve({GPU: 5})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        hold.release()
    assert len(list(directory.glob("*.reservation"))) == 1
    assert MachineLock(directory).pending() == {}
    assert list(directory.glob("*.reservation")) == []


def test_names_of_pools_need_not_be_names_of_files(directory: Path, lock: MachineLock) -> None:
    assert lock.try_hold(["../a/b", "rpc:10.0.0.1:50052"]) is not None
    assert len(list(directory.iterdir())) == 2
    assert list(directory.parent.iterdir()) == [directory]


def test_a_reservation_that_is_withdrawn_meanwhile_counts_for_nothing(
    directory: Path, lock: MachineLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "gone.reservation"]))
    assert lock.pending() == {}


def test_a_reservation_in_other_words_counts_for_nothing(
    directory: Path, lock: MachineLock
) -> None:
    hold = MachineLock(directory).try_hold([GPU])
    assert hold is not None
    hold.reserve({GPU: "much"})  # type: ignore[dict-item]
    assert lock.pending() == {}


# The directory


def test_the_directory_is_for_one_user_only(directory: Path, lock: MachineLock) -> None:
    lock.try_hold([GPU])
    assert directory.stat().st_mode & 0o777 == 0o700


def test_it_is_made_again_when_somebody_tidied_up(directory: Path, lock: MachineLock) -> None:
    lock.try_hold([])
    directory.rmdir()
    assert lock.try_hold([GPU]) is not None
    assert directory.is_dir()


def spoil_mode(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)


def spoil_with_a_link(directory: Path) -> None:
    (directory.parent / "real").mkdir(mode=0o700)
    directory.symlink_to(directory.parent / "real")


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_with_a_link, Path.touch])
def test_where_others_could_meddle_nothing_is_locked_and_that_is_said_once(
    directory: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    spoil(directory)
    first, second = MachineLock(directory), MachineLock(directory)
    for _ in range(2):
        hold = first.try_hold([GPU])
        assert hold is not None
        hold.reserve({GPU: 5})
    [line] = caplog.messages
    assert "only this user may use" in line
    assert "XDG_RUNTIME_DIR" in line
    assert second.pending() == {}
    assert second.try_hold([GPU]) is not None


def test_somebody_elses_is_not_used(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: directory.stat().st_uid + 1)
    assert MachineLock(directory).try_hold([GPU]) is not None
    assert list(directory.iterdir()) == []
    assert "only this user may use" in caplog.text


def test_one_that_cannot_be_made_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = MachineLock(tmp_path / "none" / "meet")
    assert lock.pending() == {}
    assert lock.try_hold([GPU]) is not None
    assert "might take the same memory" in caplog.text


def test_where_files_cannot_be_locked_routers_do_not_wait(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_directory, "fcntl", None)
    first, second = MachineLock(directory), MachineLock(directory)
    hold = first.try_hold([GPU])
    assert hold is not None
    hold.reserve({GPU: 5})
    assert second.try_hold([GPU]) is not None
    assert second.pending() == {}
    hold.release()


class TestAnotherRouter:
    """Its presence is said, once: the two do not send each other's models away."""

    def test_who_comes_second_says_it_at_once(
        self, lock: MachineLock, other: OtherRouter, caplog: pytest.LogCaptureFixture
    ) -> None:
        other.ask("arrive")
        lock.arrive()
        lock.pending()
        assert caplog.text.count("another router runs on this machine") == 1
        assert 'share one (mode="shared", with one shared_name)' in caplog.text

    def test_who_was_first_says_it_when_it_looks_next(
        self, lock: MachineLock, other: OtherRouter, caplog: pytest.LogCaptureFixture
    ) -> None:
        lock.arrive()
        lock.pending()
        assert caplog.text == ""
        other.ask("arrive")
        lock.pending()
        lock.pending()
        assert caplog.text.count("another router runs on this machine") == 1

    def test_one_that_has_gone_is_no_other(
        self,
        directory: Path,
        lock: MachineLock,
        other: OtherRouter,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        other.ask("arrive")
        other.kill()
        third = MachineLock(directory)
        third.arrive()
        third.leave()
        third.leave()
        lock.arrive()
        assert caplog.text == ""
        assert len(list(directory.glob("*.router"))) == 1

    def test_where_nobody_can_be_seen_nothing_is_said(
        self, directory: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        directory.mkdir()
        directory.chmod(0o777)
        lock = MachineLock(directory)
        lock.arrive()
        lock.arrive()
        lock.leave()
        assert caplog.text.count("might take the same memory") == 1
