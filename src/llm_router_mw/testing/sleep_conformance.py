"""What any sleep handler has to keep to. For tests of plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

import anyio

from llm_router_mw.errors import SnapshotError
from llm_router_mw.protocols import SleepHandler, SnapshotStore
from llm_router_mw.snapshot_file import snapshot_of, write_snapshot
from llm_router_mw.types import InstanceKey, LoadOptions, SequenceInfo, Snapshot, Spare, Step

_SECONDS = 30.0
"""How long one call may take; a router has less patience."""
_STATE_BYTES = 1024 * 1024
_TOKENS = 128


class SleepyInstance:
    """An instance that holds two conversations, and notes what a handler does wrong with it."""

    closing = hurried = False

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.key = InstanceKey("/models/conformance.gguf", LoadOptions())
        self.models = ("conformance",)
        self.is_open = False
        """Whether it may be asked what it holds: while it goes to sleep, and not after."""
        self.problems: list[str] = []
        self._saved: set[str] = set()

    async def sequences(self) -> Sequence[SequenceInfo]:
        self._see_that_it_is_open()
        return tuple(_sequence(number) for number in range(2))

    async def save(self, sequence: int, path: str) -> Snapshot:
        self._see_that_it_is_open()
        if not self.identity:
            self.problems.append("it saves what nothing is to be kept of: the identity is empty")
        if path in self._saved:
            self.problems.append(f"it saves two conversations in {path!r}")
        self._saved.add(path)
        info = _sequence(sequence)
        try:
            header = write_snapshot(
                path,
                [("state", info.n_tokens, bytes(info.state_bytes // 2))],
                identity=self.identity,
                key=info.key,
                tokens=bytes(4 * info.n_tokens),
                blocks=info.blocks,
                created_at=1.0,
            )
        except (OSError, SnapshotError) as error:
            self.problems.append(f"it has a conversation saved where that cannot be: {error}")
            raise SnapshotError(f"{path!r} cannot be written") from error
        return snapshot_of(path, header)

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare] = ()) -> None:
        for each in snapshots:
            if each.identity != self.identity:
                self.problems.append("it offers what another model has computed")
            if not Path(each.path).exists():
                self.problems.append("it offers a file that is not there")

    def withdraw(self, paths: Sequence[str]) -> None:
        """Nothing has been read of what was offered."""

    def memory(self) -> Mapping[str, int]:
        return {}

    def _see_that_it_is_open(self) -> None:
        if not self.is_open:
            self.problems.append("it asks an instance for conversations that does not go to sleep")
            raise SnapshotError("it is too late to save anything")


async def check_sleep_handler(handler: SleepHandler) -> None:
    """See that *handler*, which is running, lets instances sleep, end and come back.

    It has to return in time, keep nothing of an instance that says so by an empty identity, and
    never offer one instance what another has computed.
    """
    assert isinstance(handler, SleepHandler), "it needs a name, sleep(handle, …) and resume(handle)"
    for level in get_args(Step):
        for identity in ("", "/models/conformance.gguf#1", "/models/conformance.gguf#2"):
            for instance in await _slept_and_resumed(handler, SleepyInstance(identity), level):
                assert not instance.problems, instance.problems[0]


async def _slept_and_resumed(
    handler: SleepHandler, instance: SleepyInstance, level: Step
) -> tuple[SleepyInstance, ...]:
    """Return the instance that went to sleep, and the one that came back."""
    again = instance
    with anyio.move_on_after(_SECONDS) as bound, suppress(SnapshotError):
        instance.is_open = True
        await handler.sleep(instance, level)
        instance.is_open = False
        if level == "stop":
            again = SleepyInstance(instance.identity)
            if isinstance(handler, SnapshotStore):
                handler.left(instance)
        await handler.resume(again)
    assert not bound.cancelled_caught, f"it does not return within {_SECONDS:g} s"
    return instance, again


def _sequence(number: int) -> SequenceInfo:
    return SequenceInfo(
        sequence=number,
        key="somebody",
        n_tokens=_TOKENS,
        blocks=bytes([number + 1]) * 16,
        state_bytes=_STATE_BYTES,
        used_seconds_ago=1.0,
        prefill_tokens_per_second=10.0,
    )
