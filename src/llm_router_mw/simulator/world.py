"""The world around a scheduler, on a clock that jumps: it obeys actions, and nothing ever fails.

Loads, wakes, sleeps and stops take the seconds that are known of a model; several go on at once
without slowing each other down. An answer takes its tokens by the model's pace, in one of the
model's parallel slots.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Literal

from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.residence import Residence
from llm_router_mw.simulator.tally import Tally
from llm_router_mw.simulator.trace import Ask, ModelFacts, Trace
from llm_router_mw.types import InstanceKey, LoadOptions

Order = Literal["fair", "fifo"]
"""How requests come to the scheduler: all at once, or each when the one before has its model."""

STOP_SECONDS = 0.5
SLEEP_SECONDS = 0.5

_Work = int | str | events.Event
"""What happens at some time: the answer of a lease ends, a client asks its next, or the scheduler
is told an event."""


class _Engine:
    """What plays one instance."""

    __slots__ = ("active", "facts", "index", "instances", "is_leaving", "key", "names", "waiting")

    def __init__(self, index: int, facts: ModelFacts) -> None:
        self.index = index
        self.facts = facts
        self.key = InstanceKey(facts.model, LoadOptions())
        self.instances = (self.key,)
        self.names = (facts.model,)
        self.active = 0
        self.waiting: deque[tuple[int, int]] = deque()
        """Lease and tokens of answers that wait for a slot."""
        self.is_leaving = False


class World:
    """Plays a trace; ``run`` goes through it once."""

    def __init__(
        self,
        trace: Trace,
        machine: Machine,
        scheduler: Scheduler,
        *,
        terms: Mapping[str, Terms],
        order: Order = "fair",
        closed_loop: bool = False,
        residence: Residence | None = None,
        recorder: Callable[[float, events.Event], None] | None = None,
    ) -> None:
        self.tally = Tally(list(trace.models))
        self.now = 0.0
        self._trace = trace
        self._machine = machine
        self._decide = scheduler.decide
        self._terms = terms
        self._one_by_one = order == "fifo"
        self._closed_loop = closed_loop
        self._residence = residence
        self._recorder = recorder
        self._engines = {
            name: _Engine(index, facts) for index, (name, facts) in enumerate(trace.models.items())
        }
        self._of_key = {engine.key: engine for engine in self._engines.values()}
        self._work: list[tuple[float, int, _Work, _Engine | None]] = []
        self._count = 0
        self._timer = inf
        # Requests are numbered in the order in which they are sent, from 1.
        self._asked: dict[int, tuple[float, _Engine, Ask]] = {}
        """Requests that the scheduler has not answered yet."""
        self._held_back: deque[tuple[float, Ask]] = deque()
        """Requests that wait for those before them, in the order ``fifo``."""
        self._running: dict[int, tuple[_Engine, str]] = {}
        """Lease → who serves it, and for whom."""
        self._clients: dict[str, deque[Ask]] = {}
        """Keys whose request is not done → what they will ask next, in a closed loop."""
        self._next_request = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            actions.AskPrice: self._price,
            actions.Start: self._start,
            actions.Sleep: self._sleep,
            actions.Wake: self._wake,
            actions.Stop: self._stop,
            actions.Kill: self._stop,
            actions.Grant: self._grant,
            actions.Reject: self._reject,
            actions.Revoke: self._revoke,
            actions.SetTimer: self._set_timer,
            actions.Announce: self._announce,
        }

    def run(self) -> Tally:
        """Play all of it and return what was counted."""
        self._tell(events.MemoryObserved(pools=self._machine.readings()))
        self._tell(events.Catalogued(terms=self._terms))
        arrivals = self._trace.asks
        ask = next(arrivals, None)
        work = self._work
        while ask is not None or work or self._asked or self._held_back:
            while self._held_back and not self._asked:
                self._submit(*self._held_back.popleft())
            arrives = ask.time if ask is not None else inf
            happens = work[0][0] if work else inf
            if self._timer < arrives and self._timer < happens:
                self.now, self._timer = max(self.now, self._timer), inf
                self._tell(events.Tick())
            elif happens <= arrives and work:
                self.now, _, what, engine = heapq.heappop(work)
                self._happen(what, engine)
            elif ask is not None:
                self.now = arrives
                self._arrive(ask)
                ask = next(arrivals, None)
            else:
                break  # somebody waits for what will never happen
        self.tally.unanswered = len(self._asked) + len(self._held_back)
        if self._residence is not None:
            self._residence.close(self.now)
        self.tally.ended_at = self.now
        return self.tally

    def _happen(self, what: _Work, engine: _Engine | None) -> None:
        if isinstance(what, int):
            self._finish(what)
        elif isinstance(what, str):
            self._next_of(what)
        elif engine is None or not engine.is_leaving or isinstance(what, events.WorkerExited):
            # Who was told to go says nothing more than that it has gone.
            self._tell(what)

    # Requests

    def _arrive(self, ask: Ask) -> None:
        if self._closed_loop:
            mine = self._clients.get(ask.key)
            if mine is not None:
                mine.append(ask)
                return
            self._clients[ask.key] = deque()
        self._send(ask)

    def _send(self, ask: Ask) -> None:
        self.tally.sent_at.append(self.now)
        self.tally.sent_to.append(self._engines[ask.model].index)
        if self._one_by_one and self._asked:
            self._held_back.append((self.now, ask))
        else:
            self._submit(self.now, ask)

    def _submit(self, sent_at: float, ask: Ask) -> None:
        engine = self._engines[ask.model]
        self._next_request += 1
        self._asked[self._next_request] = (sent_at, engine, ask)
        self._tell(
            events.Request(
                id=self._next_request,
                instances=engine.instances,
                models=engine.names,
                priority=ask.priority,
            )
        )

    def _finish(self, lease: int) -> None:
        running = self._running.pop(lease, None)
        if running is None:
            return  # it was revoked
        engine, key = running
        self._leave(engine)
        self._tell(events.Released(lease))
        if self._closed_loop:
            self._next_of(key)

    def _leave(self, engine: _Engine) -> None:
        """Give the slot of an answer to the next that waits for one."""
        engine.active -= 1
        while engine.waiting:
            lease, tokens = engine.waiting.popleft()
            if lease in self._running:
                self._answer(engine, lease, tokens)
                return

    def _answer(self, engine: _Engine, lease: int, tokens: int) -> None:
        engine.active += 1
        self._later(tokens / engine.facts.tokens_per_second, lease)

    def _next_of(self, key: str) -> None:
        mine = self._clients[key]
        if mine:
            self._send(mine.popleft())
        else:
            del self._clients[key]

    # The scheduler

    def _tell(self, event: events.Event) -> None:
        if self._recorder is not None:
            self._recorder(self.now, event)
        handlers = self._handlers
        for action in self._decide(event, self.now):
            handlers[type(action)](action)

    def _later(self, seconds: float, what: _Work, engine: _Engine | None = None) -> None:
        self._count += 1
        heapq.heappush(self._work, (self.now + seconds, self._count, what, engine))

    def _price(self, action: actions.AskPrice) -> None:
        facts = self._of_key[action.instance].facts
        self._later(
            0.0, events.Priced(instance=action.instance, prices=self._machine.prices(facts))
        )

    def _start(self, action: actions.Start) -> None:
        engine = self._of_key[action.instance]
        engine.is_leaving = False
        seconds = engine.facts.load_seconds
        self.tally.loads += 1
        self.tally.loading_seconds += seconds
        self.tally.note_return(engine.index, self.now)
        self._later(
            seconds,
            events.Loaded(instance=engine.key, generation=action.generation, load_seconds=seconds),
            engine,
        )

    def _wake(self, action: actions.Wake) -> None:
        engine = self._of_key[action.instance]
        facts = engine.facts
        seconds = facts.load_seconds if facts.wake_seconds is None else facts.wake_seconds
        self.tally.wakes += 1
        self.tally.loading_seconds += seconds
        self.tally.note_return(engine.index, self.now)
        self._later(
            seconds,
            events.Woke(instance=engine.key, generation=action.generation, wake_seconds=seconds),
            engine,
        )

    def _sleep(self, action: actions.Sleep) -> None:
        self._later(
            SLEEP_SECONDS,
            events.Slept(
                instance=action.instance,
                generation=action.generation,
                sleep_seconds=SLEEP_SECONDS,
            ),
            self._of_key[action.instance],
        )

    def _stop(self, action: actions.Stop | actions.Kill) -> None:
        engine = self._of_key[action.instance]
        if not engine.is_leaving:
            engine.is_leaving = True
            self._later(
                STOP_SECONDS,
                events.WorkerExited(
                    instance=engine.key, generation=action.generation, reason="it was told to"
                ),
                engine,
            )

    def _grant(self, action: actions.Grant) -> None:
        sent_at, engine, ask = self._asked.pop(action.request)
        self.tally.waits.append(self.now - sent_at)
        [lease] = action.leases
        self._running[lease] = (engine, ask.key)
        if engine.active < engine.facts.parallel:
            self._answer(engine, lease, ask.tokens)
        else:
            engine.waiting.append((lease, ask.tokens))

    def _reject(self, action: actions.Reject) -> None:
        _, _, ask = self._asked.pop(action.request)
        self.tally.note_refusal(action.request, action.failure.kind)
        if self._closed_loop:
            self._later(0.0, ask.key)

    def _revoke(self, action: actions.Revoke) -> None:
        engine, key = self._running.pop(action.lease)
        self.tally.revoked += 1
        if all(lease != action.lease for lease, _ in engine.waiting):
            self._leave(engine)
        if self._closed_loop:
            self._later(0.0, key)

    def _set_timer(self, action: actions.SetTimer) -> None:
        self._timer = inf if action.at_seconds is None else action.at_seconds

    def _announce(self, action: actions.Announce) -> None:
        if action.kind == "evicted":
            self.tally.note_eviction(self._of_key[action.instance].index, self.now)
        if self._residence is not None:
            self._residence.note(self._of_key[action.instance].index, action.state, self.now)
