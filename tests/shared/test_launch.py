"""A host is started once and by whoever comes first, or it is said why it cannot be."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from llm_router_mw.errors import ConfigError, PluginLoadError, RouterNotRunningError
from llm_router_mw.router import Router
from llm_router_mw.shared import launch
from llm_router_mw.shared.card import cards
from tests.support.meetings import (
    BOUND,
    SLOW,
    address,
    ended,
    hung_up,
    meet_only,
    met,
    pid_of,
    plan_of,
)
from tests.support.waiting import until

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("runtime", "folder")]

WEB_PROCESS = """
import os, sys
import anyio
from llm_router_mw.config import parse_config
from llm_router_mw.shared.meeting import meet
from llm_router_mw.shared.plan import plan_for

async def main():
    meeting = await meet(plan_for(parse_config(spare_worker=False), sys.argv[1:]))
    os.write(1, b"%d" % meeting.host_pid)
    sys.stdin.read()

anyio.run(main)
"""


FORKING = """
import os
import anyio
from llm_router_mw import RemoteRouter

router = RemoteRouter(spare_worker=False)

async def live():
    async with router:
        return len(router.models())

children = [os.fork() or anyio.run(live) or os._exit(0) for _ in range(2)]
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert anyio.run(live) == 0
"""
"""An app that was made before its server forked."""


async def test_web_processes_that_come_at_once_have_one_host() -> None:
    pids: list[bytes] = []
    everybody_is_there = anyio.Event()

    async def come() -> None:
        command = [sys.executable, "-c", WEB_PROCESS]
        async with await anyio.open_process(command, stderr=None) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            pids.append(await process.stdout.receive())
            if len(pids) == 3:
                everybody_is_there.set()
            await everybody_is_there.wait()
            await process.stdin.aclose()

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(come)
    assert len(set(pids)) == 1
    assert len(cards()) == 1


async def test_a_starter_that_is_killed_leaves_its_host_to_the_next(folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW.format(go=str(folder / "go")))
    command = [sys.executable, "-c", WEB_PROCESS, "slow"]
    with anyio.fail_after(BOUND):
        async with await anyio.open_process(command, stderr=None) as process:
            await until(cards, BOUND)
            process.kill()
    [card] = cards()
    found: list[int | None] = []

    async def come() -> None:
        found.append(await meet_only(plan_of("slow")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(come)
        await anyio.wait_all_tasks_blocked()
        (folder / "go").touch()
    assert found == [card.pid]


async def test_so_does_one_that_is_not_waited_for(folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW.format(go=str(folder / "go")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(meet_only, plan_of("slow"))
        await until(cards, BOUND)
        tasks.cancel_scope.cancel()
    (folder / "go").touch()
    found = await meet_only(plan_of("slow"))
    assert [card.pid for card in cards()] == [found]


async def test_a_host_that_was_killed_is_followed_by_another() -> None:
    async with met(plan_of()) as meeting:
        first = pid_of(meeting)
        os.kill(first, signal.SIGKILL)
        await hung_up(meeting)
    assert address().socket.exists()
    assert await meet_only(plan_of()) != first
    assert str(first) in address().log.with_suffix(".log.1").read_text()


async def test_one_of_another_plan_stays_for_those_who_are_there() -> None:
    async with met(plan_of()) as before:
        first, second = pid_of(before), await meet_only(plan_of(n_ctx=64))
        assert await meet_only(plan_of(n_ctx=64)) == second != first
        assert {card.pid for card in cards()} == {first, second}
    await ended(first)
    assert [card.pid for card in cards()] == [second]
    assert not address().socket_of(first).exists()


async def test_a_router_that_was_made_before_a_fork_is_started_in_each_process() -> None:
    with anyio.fail_after(BOUND):
        await anyio.run_process([sys.executable, "-c", FORKING], stderr=None)
    assert len(cards()) == 1


# Where it cannot be


async def test_what_is_wrong_with_the_options_is_said_as_by_a_router(folder: Path) -> None:
    missing = str(folder / "none")
    with pytest.raises(ConfigError) as there:
        await meet_only(plan_of(models_dir=missing))
    with pytest.raises(ConfigError) as here:
        await Router(models_dir=missing).__aenter__()
    assert there.value.message == here.value.message
    await until(lambda: not cards(), BOUND)


async def test_so_is_what_is_wrong_with_a_plugin(folder: Path) -> None:
    (folder / "broken.py").write_text("raise ValueError('no such luck')")
    with pytest.raises(PluginLoadError, match=r"'broken' cannot be imported: no such luck"):
        await meet_only(plan_of("broken"))


async def test_a_host_that_dies_is_reported_with_its_last_words(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = "import os\nos.write(2, b'last words')\nos.kill(os.getpid(), 9)\n"
    (folder / "deadly.py").write_text(code)
    with pytest.raises(RouterNotRunningError, match="its process ended, or was not ready"):
        await meet_only(plan_of("deadly"))
    assert "last words" in caplog.text


async def test_one_that_never_becomes_ready_ends_and_says_where_it_hung(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "slow.py").write_text(SLOW.format(go="never"))
    monkeypatch.setattr(launch, "START_SECONDS", 1.0)
    with pytest.raises(RouterNotRunningError, match="was not ready in time"):
        await meet_only(plan_of("slow"))
    assert "Timeout (0:00:01)!" in caplog.text
    assert "slow.py" in caplog.text
    assert cards() == []


async def test_one_that_does_not_even_end_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "stopped.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 3 - launch.START_SECONDS)
    with pytest.raises(RouterNotRunningError, match="was not ready in time"):
        await meet_only(plan_of("stopped"))
    await until(lambda: not cards(), BOUND)


async def test_one_that_the_system_does_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(RouterNotRunningError, match=r"cannot be started: .*No such file"):
        await meet_only(plan_of())
