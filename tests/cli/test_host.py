"""``llm-router-mw host``: what is printed about hosts, and which one is ended."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from llm_router_mw.cli import host, main
from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.shared.address import Address
from llm_router_mw.shared.card import Card
from llm_router_mw.shared.hosts import FoundHost
from llm_router_mw.shared.messages import Status
from llm_router_mw.types import InstanceState
from tests.support.fake_router import view

STATUS = Status(
    version="1.2",
    fingerprint="x",
    pid=11,
    web_processes=(21, 22),
    draining=False,
    models=(view("guide", state=InstanceState.LOADED), view("companion")),
)


def found(number: int, name: str, folder: str, **fields: Any) -> FoundHost:
    address = Address("/run/shared", f"s{number}")
    card = Card(pid=number, name=name, folder=folder, address=address)
    return FoundHost(card=card, **fields)


SERVING = found(11, "ours", "/srv/app", pid=11, status=STATUS)
REPLACED = found(12, "", "/srv/app", pid=12, status=msgspec.structs.replace(STATUS, draining=True))
SILENT = found(13, "", "/srv/other")


class Hosts:
    """All hosts that there are, and who was ended."""

    def __init__(self) -> None:
        self.found: list[FoundHost] = []
        self.ended: list[tuple[int, bool]] = []
        self.obedient = True

    async def find(self) -> list[FoundHost]:
        return self.found

    async def end(self, card: Card, pid: int, seconds: float, *, force: bool) -> bool:
        self.ended.append((pid, force))
        return self.obedient


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    hosts = Hosts()
    monkeypatch.setattr(host, "find_hosts", hosts.find)
    monkeypatch.setattr(host, "end_host", hosts.end)
    return hosts


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["host", *arguments], env={"COLUMNS": "200"})


def test_without_hosts_it_says_how_there_would_be_one(hosts: Hosts) -> None:
    assert run().output.startswith("no host runs; the first web process with mode=")


def test_hosts_are_listed_with_what_they_do(hosts: Hosts) -> None:
    idle = msgspec.structs.replace(STATUS, draining=True, models=(), web_processes=())
    hosts.found = [SERVING, found(12, "", "/srv/app", pid=12, status=idle), SILENT]
    serving, replaced, silent = run().output.split("\n\n")
    assert serving.splitlines() == [
        "process 11: serving",
        "  name:          ours",
        "  directory:     /srv/app",
        "  loaded:        guide",
        "  web processes: 21, 22",
        "  log:           /run/shared/s11.log",
    ]
    assert replaced.splitlines()[:4] == [
        "process 12: replaced",
        "  directory:     /srv/app",
        "  loaded:        none",
        "  web processes: none",
    ]
    assert silent.splitlines() == [
        "process 13: silent",
        "  directory:     /srv/other",
        "  log:           /run/shared/s13.log",
    ]


def test_a_path_is_never_broken_in_a_narrow_terminal(hosts: Hosts) -> None:
    folder = "/srv/" + "a" * 100
    hosts.found = [found(13, "", folder)]
    result = CliRunner().invoke(main, ["host"], env={"COLUMNS": "40"})
    assert folder in result.output


def test_the_list_can_be_read_by_programs(hosts: Hosts) -> None:
    hosts.found = [SERVING, SILENT]
    serving, silent = msgspec.json.decode(run("--json").output)
    assert serving == {
        "pid": 11,
        "name": "ours",
        "folder": "/srv/app",
        "state": "serving",
        "loaded": ["guide"],
        "web_processes": [21, 22],
        "version": "1.2",
        "log": "/run/shared/s11.log",
    }
    assert silent["state"] == "silent"


def test_where_hosts_cannot_be_looked_at_it_says_why(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse() -> list[FoundHost]:
        raise RouterNotRunningError("it is another user's")

    monkeypatch.setattr(host, "find_hosts", refuse)
    result = run()
    assert result.exit_code == 1
    assert result.output == "Error: it is another user's\n"


@pytest.mark.parametrize(
    ("which", "ended"), [("ours", 11), ("11", 11), ("12", 12), ("/srv/more", 14)]
)
def test_a_host_is_ended_by_its_name_its_folder_or_its_process(
    hosts: Hosts, which: str, ended: int
) -> None:
    hosts.found = [SERVING, REPLACED, SILENT, found(14, "", "/srv/more", pid=14)]
    assert run("stop", which).output == f"process {ended} has ended\n"
    assert hosts.ended == [(ended, False)]


def test_the_only_one_needs_no_name(hosts: Hosts) -> None:
    hosts.found = [SERVING]
    assert run("stop", "--force").exit_code == 0
    assert hosts.ended == [(11, True)]


@pytest.mark.parametrize(
    ("there", "which", "message"),
    [
        ([], "", "no host runs"),
        ([SERVING, SILENT], "", r"several hosts are meant; name one of: ours (process 11), /srv/"),
        ([SERVING, REPLACED], "/srv/app", "several hosts are meant; name one of: ours (process 11"),
        ([SERVING], "theirs", "no host is called 'theirs'; name one of: ours (process 11)"),
        ([SILENT], "", "process 13 does not listen: it starts, ends or lives in another container"),
    ],
)
def test_nothing_is_ended_where_it_is_not_clear_what(
    hosts: Hosts, there: list[FoundHost], which: str, message: str
) -> None:
    hosts.found = there
    result = run("stop", which)
    assert result.exit_code == 1
    assert message in result.output
    assert hosts.ended == []


def test_one_that_does_not_end_is_reported(hosts: Hosts) -> None:
    hosts.found = [SERVING]
    hosts.obedient = False
    result = run("stop")
    assert result.exit_code == 1
    assert (
        "has not ended within 60 s; see its log, '/run/shared/s11.log', or use --f" in result.output
    )
