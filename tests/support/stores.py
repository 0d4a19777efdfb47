"""Stores in directories of a test, on a clock that a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from llm_router_mw.config import parse_config
from llm_router_mw.kv_store import KVStore
from llm_router_mw.types import HOST
from tests.support.fake_handle import FakeHandle


@dataclass
class Clock:
    """Unix time as a test has it."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Account:
    """A memory account with *left* bytes of room."""

    left: int = 2**40
    held: list[int] = field(default_factory=list)

    def hold(self, bytes_by_pool: Mapping[str, int]) -> None:
        self.held.append(bytes_by_pool[HOST])

    def room(self, pool: str) -> int:
        assert pool == HOST
        return self.left


@asynccontextmanager
async def running(
    folder: Path, clock: Clock | None = None, account: Account | None = None, **options: Any
) -> AsyncIterator[KVStore]:
    """Run a store whose shared memory is a directory in *folder*."""
    memory = folder / "shm"
    memory.mkdir(exist_ok=True)
    store = KVStore(parse_config(options), clock=clock or Clock(), shared_memory=memory)
    if account is not None:
        store.use_account(account)
    async with store.running():
        yield store


async def slept(store: KVStore, handle: FakeHandle, level: str = "full") -> None:
    """Let *handle* go to sleep."""
    await store.sleep(handle, level)  # type: ignore[arg-type]


async def settled(store: KVStore) -> None:
    """Wait until *store* has done what it does behind everybody's back."""
    done = anyio.Event()

    async def last() -> None:
        done.set()

    store._jobs.put(last)
    with anyio.fail_after(10):
        await done.wait()


def kept(store: KVStore) -> list[tuple[str, int]]:
    """Return place and number of tokens of what is kept."""
    return sorted((each.tier, each.n_tokens) for each in store.snapshots())


def in_memory(folder: Path) -> list[Path]:
    """Return the finished files in shared memory."""
    return sorted((folder / "shm").rglob("*.kv"))


def all_files(folder: Path) -> list[Path]:
    """Return all files in *folder* but locks."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
