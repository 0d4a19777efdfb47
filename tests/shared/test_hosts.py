"""Hosts can be looked up and ended, whatever state they are in."""

from __future__ import annotations

import os
import signal

import pytest

from llm_router_mw import __version__
from llm_router_mw.shared import hosts
from llm_router_mw.shared.card import shown
from llm_router_mw.shared.hosts import end_host, find_hosts
from llm_router_mw.shared.seat import seated
from tests.support.meetings import BOUND, address, ended, met, pid_of, plan_of

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("runtime", "folder")]


async def test_where_there_is_none_none_is_found() -> None:
    assert await find_hosts() == []


async def test_a_host_says_what_it_does(demo_models: object) -> None:
    async with met(plan_of(models_dir=str(demo_models))) as meeting:
        [found] = await find_hosts()
        assert found.pid == found.card.pid == meeting.host_pid
        assert found.card.folder == os.getcwd()
        assert found.status is not None
        assert found.status.web_processes == (os.getpid(),)
        assert found.status.version == __version__
        assert {view.id for view in found.status.models} == {"guide", "companion"}
        assert not found.status.draining


async def test_one_that_has_made_way_is_found_beside_the_next() -> None:
    async with met(plan_of()) as before, met(plan_of(n_ctx=64)) as meeting:
        found = {each.pid: each.status for each in await find_hosts()}
    assert set(found) == {before.host_pid, meeting.host_pid}
    old, new = (found[pid_of(each)] for each in (before, meeting))
    assert old is not None
    assert new is not None
    assert old.draining
    assert not new.draining


async def test_one_that_starts_does_not_listen_yet() -> None:
    with shown(plan_of(), address()):
        [found] = await find_hosts()
    assert found.card.pid == os.getpid()
    assert (found.pid, found.status) == (None, None)


async def test_one_that_hangs_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_ANSWER_SECONDS", 0.05)
    with shown(plan_of(), address()):
        async with seated(address()):  # and nobody accepts
            [found] = await find_hosts()
    assert found.pid == os.getpid()
    assert found.status is None


async def test_another_at_its_address_is_not_taken_for_it() -> None:
    async with met(plan_of()) as meeting:
        with shown(plan_of(), address()):
            mine, theirs = sorted(await find_hosts(), key=lambda each: each.pid is not None)
    assert mine.card.pid == os.getpid()
    assert mine.status is None
    assert theirs.pid == meeting.host_pid


async def test_one_can_be_ended() -> None:
    async with met(plan_of()) as meeting:
        [found] = await find_hosts()
        assert await end_host(found.card, pid_of(meeting), BOUND)
    assert await find_hosts() == []
    assert "SIGTERM" in address().log.read_text()
    assert await end_host(found.card, pid_of(meeting), BOUND)  # which it has already


async def test_one_that_hangs_is_ended_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_ANSWER_SECONDS", 0.05)
    async with met(plan_of()) as meeting:
        pid = pid_of(meeting)
        os.kill(pid, signal.SIGSTOP)
        [card] = [each.card for each in await find_hosts()]
        assert not await end_host(card, pid, 0.1)
        assert await end_host(card, pid, BOUND, force=True)
    await ended(pid)
