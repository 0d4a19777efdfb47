"""Guesses which model is asked for next, from what each API key asked for before."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

_ENOUGH = 64
"""Transitions from one model after which old ones count half, so that habits may change."""


@dataclass(slots=True)
class _Habits:
    """What one key did."""

    last: str
    after: OrderedDict[str, dict[str, float]] = field(default_factory=OrderedDict)
    """Model → what came next, and how often; the last used at the end."""


class NextModel:
    """First-order transitions between models, for each API key by itself.

    A model that is asked for again right away is no transition: only changes are learned, since
    only they need a load. Its memory is bounded by the three limits.
    """

    def __init__(
        self,
        *,
        confidence: float = 0.5,
        seen: int = 3,
        max_keys: int = 1000,
        max_models: int = 64,
        max_successors: int = 16,
    ) -> None:
        """Remember *max_keys* keys, each with *max_models* models and their *max_successors*.

        A guess is made after *seen* transitions from a model, if at least *confidence* of them (0
        to 1) went to the same one.
        """
        self._confidence = confidence
        self._seen = seen
        self._max_keys = max_keys
        self._max_models = max_models
        self._max_successors = max_successors
        self._habits: OrderedDict[str, _Habits] = OrderedDict()

    def observe(self, key: str, model: str) -> None:
        """Take note that *key* asks for *model* now."""
        habits = self._habits.get(key)
        if habits is None:
            self._habits[key] = _Habits(model)
            if len(self._habits) > self._max_keys:
                self._habits.popitem(last=False)
            return
        self._habits.move_to_end(key)
        if model != habits.last:
            self._learn(habits, habits.last, model)
            habits.last = model

    def next(self, key: str, model: str) -> str | None:
        """Return what *key* will probably ask for after *model*; None if that is not clear."""
        habits = self._habits.get(key)
        following = habits.after.get(model) if habits is not None else None
        if not following:
            return None
        total = sum(following.values())
        likely = max(following, key=following.__getitem__)
        sure = total >= self._seen and following[likely] >= self._confidence * total
        return likely if sure else None

    def _learn(self, habits: _Habits, model: str, then: str) -> None:
        following = habits.after.setdefault(model, {})
        habits.after.move_to_end(model)
        if len(habits.after) > self._max_models:
            habits.after.popitem(last=False)
        if then not in following and len(following) >= self._max_successors:
            del following[min(following, key=following.__getitem__)]
        following[then] = following.get(then, 0.0) + 1.0
        if sum(following.values()) > _ENOUGH:
            for each in following:
                following[each] /= 2
