"""Processes that share a router come to the same address, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.errors import ConfigError
from llm_router_mw.shared.address import Address, address_of, meeting_place

pytestmark = pytest.mark.usefixtures("runtime")


def test_a_name_or_a_folder_has_one_address() -> None:
    addresses = [address_of(*whose) for whose in (("a", "/x"), ("b", "/x"), ("", "/x"), ("", "/y"))]
    assert len({address.stem for address in addresses}) == 4
    assert address_of("a", "/y") == addresses[0]
    assert address_of("", "/x") == addresses[2]
    assert address_of("/x", "") != addresses[2]


def test_its_directory_is_for_this_user_alone(runtime: Path) -> None:
    address = address_of("a", "/x")
    assert Path(address.directory) == meeting_place() == runtime / "llm-router-mw" / "shared"
    for folder in (meeting_place(), meeting_place().parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_its_files_are_told_apart() -> None:
    address = Address("/run", "s")
    files = [address.socket, address.socket_of(5), address.lock, address.log, address.card_of(5)]
    assert [str(file) for file in files] == [
        "/run/s.sock",
        "/run/s-5.sock",
        "/run/s.lock",
        "/run/s.log",
        "/run/s-5.host",
    ]


def test_one_that_others_may_use_is_refused(runtime: Path) -> None:
    (runtime / "llm-router-mw").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match=r"only this user may use.*set XDG_RUNTIME_DIR"):
        address_of("a", "/x")


def test_one_that_is_too_long_for_a_socket_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(ConfigError, match="too long for a socket's path; set XDG_RUNTIME_DIR"):
        address_of("a", "/x")
