"""A host as a process: what it has, what it has not, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_router_mw.shared.address import meeting_place
from tests.support.meetings import about, address, ended, hung_up, met, opened, pid_of, plan_of

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("runtime", "folder")]


def own_children() -> list[str]:
    return about(os.getpid(), f"task/{os.getpid()}/children").split()


async def test_it_is_nobodys_child_and_has_a_session_of_its_own() -> None:
    before = own_children()
    async with met(plan_of()) as meeting:
        assert own_children() == before
        stat = about(pid_of(meeting), "stat").rpartition(")")[2].split()
    parent, group, session = map(int, stat[1:4])
    assert parent != os.getpid()
    assert group != os.getpgid(0)
    assert session != os.getsid(0)


async def test_it_is_called_by_its_folder_or_its_name() -> None:
    async with met(plan_of()) as meeting:
        title = about(pid_of(meeting), "cmdline")
        assert title.endswith(f"\nllm_router_mw.shared\n{os.getcwd()}\n")
    async with met(plan_of(shared_name="our models")) as meeting:
        assert about(pid_of(meeting), "cmdline").endswith("\nour models\n")


async def test_who_works_elsewhere_finds_it_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "models").mkdir()
    (folder / "elsewhere").mkdir()
    async with met(plan_of(shared_name="ours", models_dir="models")) as here:
        monkeypatch.chdir(folder / "elsewhere")
        async with met(plan_of(shared_name="ours", models_dir="../models")) as there:
            assert pid_of(there) == pid_of(here)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket of a web server, to be inherited by its children."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        yield listener


async def test_it_has_nothing_of_the_web_servers(listening: socket.socket) -> None:
    async with met(plan_of()) as meeting:
        held = opened(pid_of(meeting))
    assert f"socket:[{os.fstat(listening.fileno()).st_ino}]" not in held.values()
    assert held[0] == "/dev/null"
    assert {held[1], held[2]} == {str(address().log)}
    assert str(address().lock) not in held.values()


async def test_secrets_are_not_seen_from_outside() -> None:
    async with met(plan_of(hf_token="hf_secret")) as meeting:
        for what in ("cmdline", "environ"):
            assert "hf_secret" not in about(pid_of(meeting), what)
    assert "hf_secret" not in address().log.read_text()


async def test_it_sees_what_the_web_process_saw(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "seeing.py").write_text(
        "import os, pathlib\n"
        "pathlib.Path('seen').write_text(os.environ['ANY'] + os.environ['HF_ENDPOINT'])\n"
    )
    monkeypatch.setenv("ANY", "any")
    monkeypatch.setenv("HF_ENDPOINT", " then")
    monkeypatch.setattr(sys, "path", ["", *sys.path[1:]])  # as where an app is run from its folder
    plan = plan_of("seeing")
    monkeypatch.setenv("HF_ENDPOINT", " now")
    async with met(plan):
        assert (folder / "seen").read_text() == "any then"


async def test_what_prints_is_in_its_log(folder: Path) -> None:
    code = "print('printed', flush=True)\nimport os\nos.write(1, b'x')\n"
    (folder / "printing.py").write_text(code)
    async with met(plan_of("printing")) as meeting:
        log = address().log.read_text()
    assert "printed\nx" in log
    assert f"INFO    llm_router_mw.shared: process {meeting.host_pid} is the host of" in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_politely_when_it_is_told_to(number: signal.Signals) -> None:
    async with met(plan_of()) as meeting:
        os.kill(pid_of(meeting), number)
        await hung_up(meeting)
    await ended(pid_of(meeting))
    left = sorted(file.name for file in meeting_place().iterdir())
    assert left == [address().lock.name, address().log.name]
    assert f"{number.name}: the host is to end" in address().log.read_text()
    assert address().log.read_text().endswith("ended\n")


async def test_it_ends_when_nobody_needs_it_any_more() -> None:
    async with met(plan_of(shared_grace_seconds=0.0)) as meeting:
        pass
    await ended(pid_of(meeting))
    assert "no web process for 0 s" in address().log.read_text()
