"""States of an instance, and the names under which clients see them."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

SleepLevel = Literal["context", "full"]
"""What sleep gives back: the context alone, or the weights too; the process stays."""

Step = Literal["context", "full", "stop"]
"""A step down the ladder: the sleep levels, and the end of the process."""


class InstanceState(StrEnum):
    """Where an instance is in its life, as the scheduler sees it."""

    UNLOADED = "unloaded"
    DOWNLOADING = "downloading"
    """Its files come from the hub; that takes no memory."""
    LOADING = "loading"
    LOADED = "loaded"
    FALLING_ASLEEP = "falling_asleep"
    """Told to sleep; what it frees is still charged until that was measured."""
    SLEEPING = "sleeping"
    WAKING = "waking"
    DRAINING = "draining"
    """Loaded, takes no new leases, stops (or falls asleep) when the last one ends."""
    STOPPING = "stopping"
    """Told to go; its memory and slot are still charged until the worker has exited."""
    FAILED = "failed"
    """The last load failed; see the cool-down in the snapshot."""


ClientState = str

# llama-server knows neither draining nor stopping: a draining model still answers, and a stopping
# one is shown as what it was.
_CLIENT_NAMES = {
    InstanceState.FALLING_ASLEEP: "loaded",
    InstanceState.WAKING: "loading",
    InstanceState.DRAINING: "loaded",
    InstanceState.STOPPING: "loaded",
    InstanceState.FAILED: "unloaded",
}


def client_state(state: InstanceState) -> ClientState:
    """Return llama-server's ``status.value`` for *state*."""
    return _CLIENT_NAMES.get(state, state.value)
