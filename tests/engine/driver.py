"""An engine driven step by step, with a record of everything that it said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from llm_router_mw.engine.aside import Aside
from llm_router_mw.engine.engine import Engine
from llm_router_mw.types import (
    CompletionTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    Failure,
    FailureDelta,
    FinishDelta,
    LoadOptions,
    ModelInfo,
    Sampling,
    Task,
)
from llm_router_mw.wire import SnapshotNews

CHAT_FORMATS = {"template": "llm_router_mw.engine.chat_template:TemplateChatFormat"}
GREEDY = Sampling(temperature=0)
ALL_THE_CREDIT = 1_000_000
_MAX_STEPS = 5_000


def prompt(text: str | tuple[int, ...] = "the fox", **fields: Any) -> CompletionTask:
    """Return a greedy completion task."""
    return CompletionTask(prompt=text, **{"sampling": GREEDY, **fields})


class Driver:
    """Wraps an :class:`Engine`; one thread of OpenMP, so that tests do not fight for cores."""

    def __init__(
        self,
        path: Path,
        chat_formats: dict[str, str] = CHAT_FORMATS,
        *,
        identity: str = "",
        helper: Aside | None = None,
        **options: Any,
    ) -> None:
        self.deltas: dict[int, list[Delta]] = defaultdict(list)
        self.rows: list[int] = []
        """Rows of each batch that was computed."""
        self.outputs = 0
        """How often the engine said something."""
        self.news: list[SnapshotNews] = []
        """What the engine told of saved conversations."""
        self.engine = Engine(self._on_deltas, tell=self.news.append, helper=helper)
        self._ids = count(1)
        self.info: ModelInfo = self.engine.load(
            str(path),
            LoadOptions(**{"n_threads": 1, "n_ctx": 512} | options),
            chat_formats,
            identity=identity,
        )

    def _on_deltas(self, deltas: list[tuple[int, Delta]]) -> None:
        self.outputs += 1
        for request_id, delta in deltas:
            self.deltas[request_id].append(delta)

    def submit(self, task: Task, credit: int = ALL_THE_CREDIT) -> int:
        """Hand *task* in and return its id."""
        request_id = next(self._ids)
        self.engine.submit(request_id, task, credit)
        return request_id

    def step(self) -> bool:
        """Make one step."""
        worked = self.engine.step()
        if worked:
            self.rows.append(self.engine.n_rows)
        return worked

    def until(self, condition: Callable[[], bool]) -> None:
        """Step until *condition* holds; fail if the engine runs out of work before."""
        for _ in range(_MAX_STEPS):
            if condition():
                return
            assert self.step(), "the engine has nothing left to do"
        raise AssertionError("it does not come to an end")

    def run(self) -> None:
        """Step until nothing can go on."""
        for _ in range(_MAX_STEPS):
            if not self.step():
                return
        raise AssertionError("it does not come to an end")

    def answer(self, task: Task) -> str:
        """Return the whole text that *task* gives."""
        request_id = self.submit(task)
        self.run()
        self.finish(request_id)
        return self.text(request_id)

    def text(self, request_id: int) -> str:
        """Return the text so far."""
        deltas = self.deltas[request_id]
        return "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))

    def vectors(self, request_id: int) -> list[EmbeddingDelta]:
        """Return the vectors so far, in the order in which they came."""
        return [delta for delta in self.deltas[request_id] if isinstance(delta, EmbeddingDelta)]

    def over(self, request_id: int) -> bool:
        """Tell whether the last delta has come."""
        deltas = self.deltas[request_id]
        return bool(deltas) and isinstance(deltas[-1], (FinishDelta, FailureDelta))

    def finish(self, request_id: int) -> FinishDelta:
        """Return the finish; there must be exactly one, at the end."""
        finish = self._last(request_id)
        assert isinstance(finish, FinishDelta), finish
        return finish

    def failure(self, request_id: int) -> Failure:
        """Return the failure; there must be exactly one, at the end."""
        failure = self._last(request_id)
        assert isinstance(failure, FailureDelta), failure
        return failure.failure

    def _last(self, request_id: int) -> Delta:
        deltas = self.deltas[request_id]
        ends = [delta for delta in deltas if isinstance(delta, (FinishDelta, FailureDelta))]
        assert ends == deltas[-1:]
        return deltas[-1]

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()
