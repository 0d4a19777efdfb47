"""What was resident when, for the picture."""

from __future__ import annotations

from msgspec import Struct

from llm_router_mw.types import InstanceState

_VISIBLE = {
    InstanceState.LOADING: "loading",
    InstanceState.WAKING: "loading",
    InstanceState.LOADED: "loaded",
    InstanceState.DRAINING: "loaded",
    InstanceState.FALLING_ASLEEP: "asleep",
    InstanceState.SLEEPING: "asleep",
    InstanceState.STOPPING: "leaving",
}
"""States in which a model takes memory, and how they are shown."""


class Span(Struct, frozen=True, gc=False):
    """A model in one state."""

    model: int
    look: str
    begins: float
    ends: float


class Residence:
    """Collects spans from states as they are announced."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._open: dict[int, tuple[str, float]] = {}

    def note(self, model: int, state: InstanceState, now: float) -> None:
        """Take note that *model* is in *state* from now on."""
        look = _VISIBLE.get(state)
        known = self._open.get(model)
        if known is not None and known[0] != look:
            self._end(model, now)
            known = None
        if known is None and look is not None:
            self._open[model] = (look, now)

    def close(self, now: float) -> None:
        """End what has not ended."""
        for model in list(self._open):
            self._end(model, now)

    def _end(self, model: int, now: float) -> None:
        look, begins = self._open.pop(model)
        if now > begins:
            self.spans.append(Span(model, look, begins, now))
