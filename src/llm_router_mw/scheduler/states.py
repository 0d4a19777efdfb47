"""The states of an instance by names of their own, and sets of them.

Each decision compares dozens of states. Until Python 3.12 it takes ten times as long to look one up
in its class as to compare it.
"""

from __future__ import annotations

from typing import Final

from llm_router_mw.types import InstanceState

UNLOADED: Final = InstanceState.UNLOADED
DOWNLOADING: Final = InstanceState.DOWNLOADING
LOADING: Final = InstanceState.LOADING
LOADED: Final = InstanceState.LOADED
FALLING_ASLEEP: Final = InstanceState.FALLING_ASLEEP
SLEEPING: Final = InstanceState.SLEEPING
WAKING: Final = InstanceState.WAKING
DRAINING: Final = InstanceState.DRAINING
STOPPING: Final = InstanceState.STOPPING
FAILED: Final = InstanceState.FAILED

AWAKE: Final = frozenset({LOADING, LOADED, FALLING_ASLEEP, WAKING, DRAINING, STOPPING})
"""In which an instance takes one of ``models_max`` slots: a victim keeps its slot until its memory
is free, so a new one never overlaps it."""

WITH_WORKER: Final = AWAKE | {SLEEPING}
"""In which an instance has a process."""

COMING_UP: Final = frozenset({LOADING, WAKING})
"""In which an instance becomes ready."""

ON_ITS_WAY: Final = COMING_UP | {LOADED}
"""In which nothing has to be started for a request."""

ABSENT: Final = frozenset({UNLOADED, FAILED})
"""In which there is no worker."""

ASLEEP: Final = frozenset({SLEEPING, FALLING_ASLEEP})
"""From which an instance wakes in the process that it has."""

LEAVING: Final = frozenset({DRAINING, STOPPING, FALLING_ASLEEP})
"""In which the memory of an instance will be free, and has been promised to somebody."""
