"""What a host leaves for those who look for hosts: a file that is locked as long as it lives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from llm_router_mw.runtime_directory import is_held, put_locked
from llm_router_mw.shared.address import CARD_SUFFIX, SOCKET_SUFFIX, Address, meeting_place
from llm_router_mw.shared.plan import Plan


class Card(Struct, frozen=True, kw_only=True):
    """One host."""

    pid: int
    name: str
    """Its ``shared_name``; may be empty."""
    folder: str
    address: Address
    """Where it is, or was until another took its place."""

    @property
    def title(self) -> str:
        """What to call the host."""
        return self.name or self.folder

    @property
    def file(self) -> Path:
        """The card itself."""
        return self.address.card_of(self.pid)

    @property
    def is_valid(self) -> bool:
        """Whether the host lives."""
        return _is_valid(self.file)


@contextmanager
def shown(plan: Plan, address: Address) -> Iterator[None]:
    """Let others see that this process is the host of *plan*; what the dead left is removed."""
    cards()
    card = Card(pid=os.getpid(), name=plan.name, folder=plan.folder, address=address)
    descriptor = put_locked(card.file, msgspec.json.encode(card))
    try:
        yield
    finally:
        card.file.unlink(missing_ok=True)
        os.close(descriptor)


def cards() -> list[Card]:
    """Return those of all hosts of this user that live; removes what the dead have left.

    Raises:
        ConfigError: there is no place where hosts could be.
    """
    found: list[Card] = []
    for file in sorted(meeting_place().glob(f"*{CARD_SUFFIX}")):
        # Gone meanwhile, or of a version that says it in another way.
        with suppress(FileNotFoundError, msgspec.MsgspecError):
            if _is_valid(file):
                found.append(msgspec.json.decode(file.read_bytes(), type=Card))
    return found


def _is_valid(file: Path) -> bool:
    try:
        if is_held(file):
            return True
    except FileNotFoundError:
        return False
    file.with_suffix(SOCKET_SUFFIX).unlink(missing_ok=True)
    return False
