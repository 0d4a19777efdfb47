"""A random world around the scheduler: requests come and go, and workers do as they like.

Every move is made from a few bytes, so a run is a list of short byte strings: it can be
repeated, and cut down to those moves that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.scheduler import Scheduler, events
from llm_router_mw.types import Failure, InstanceKey, PoolReading
from tests.support.scheduler_book import Book
from tests.support.scheduler_checks import Promise
from tests.support.scheduler_choices import Choices
from tests.support.scheduler_records import Phase, Step, Worker
from tests.support.scheduler_setup import LEVELS, POOL_SIZE, Mix, ModelKind, Setup, random_terms
from tests.support.scheduling import Lru

USUAL: Mapping[str, int] = {
    "ask": 12,
    "ask_several": 2,
    "ask_by_hand": 1,
    "leave": 3,
    "finish": 12,
    "answer_price": 8,
    "download": 0,
    "fail_download": 0,
    "load": 10,
    "fail_load": 1,
    "run_out_of_memory": 1,
    "defer": 1,
    "exit": 10,
    "crash": 1,
    "fall_asleep": 5,
    "wake": 5,
    "observe": 2,
    "hold": 1,
    "let_time_pass": 6,
    "wait_for_timer": 5,
    "unload": 1,
    "put_to_sleep": 2,
    "predict": 1,
    "say_anew": 1,
    "send_stale_news": 1,
}
"""How often each move is tried."""


class RandomWorld:
    """A scheduler, what is known about it from outside, and the moves that can be made."""

    def __init__(
        self,
        setup: Setup,
        mix: Mix,
        promises: tuple[Promise, ...],
        policy: EvictionPolicy | None = None,
    ) -> None:
        self.setup = setup
        self.mix = mix
        self.book = Book(Scheduler(policy or Lru(), setup.limits), setup.limits)
        self.promises = promises
        self.others = dict.fromkeys(setup.pools, 0)
        self.models = {kind.name: kind for kind in setup.models}
        self.remote = {kind.key for kind in setup.models if kind.is_remote}
        """Whose files have yet to be downloaded."""
        self._next_request = 1
        weights = {**USUAL, **mix.weights}
        self._moves = [
            getattr(self, f"_{name}") for name, weight in weights.items() for _ in range(weight)
        ]
        self.feed(events.Catalogued(terms={kind.name: kind.terms for kind in setup.models}))
        self._look(())

    def move(self, choices: Choices) -> None:
        """Make one move, whichever *choices* says; time passes where it is not possible."""
        # Two bytes, so that there may be more than 256 ways to go.
        number = choices.number(256) * 256 + choices.number(256)
        chosen: Callable[[Choices], bool] = self._moves[number % len(self._moves)]
        if not chosen(choices):
            self._let_time_pass(choices)

    def feed(self, event: events.Event) -> Step:
        """Send *event*, and see whether every promise still holds."""
        step = self.book.feed(event)
        for promise in self.promises:
            promise.check(self.book, step)
        return step

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* pass; the timer rings when its time has come."""
        until = self.book.now + seconds
        while (timer := self.book.timer) is not None and timer <= until:
            self.book.now = max(self.book.now, timer)
            self.book.timer = None
            self.feed(events.Tick())
        self.book.now = until

    def request(self, wanted: list[ModelKind], **fields: Any) -> None:
        """Let somebody want all of *wanted* at once."""
        self.feed(
            events.Request(
                id=self._next_request,
                instances=tuple(kind.key for kind in wanted),
                models=tuple(kind.name for kind in wanted),
                **fields,
            )
        )
        self._next_request += 1

    # What may happen to workers, by the phase that they are in

    def finish_load(
        self, key: InstanceKey, worker: Worker, measured: Mapping[str, int] | None
    ) -> None:
        kind = events.Loaded if worker.phase == "loading" else events.Woke
        self.feed(kind(instance=key, generation=worker.generation, measured=measured))

    def exit(self, key: InstanceKey, worker: Worker, reason: str = "it ended") -> None:
        self.feed(events.WorkerExited(instance=key, generation=worker.generation, reason=reason))

    def fall_asleep(
        self, key: InstanceKey, worker: Worker, measured: Mapping[str, int] | None
    ) -> None:
        self.feed(events.Slept(instance=key, generation=worker.generation, measured=measured))

    def answer_price(self, key: InstanceKey) -> None:
        prices = next(kind.prices for kind in self.setup.models if kind.key == key)
        self.feed(events.Priced(instance=key, prices=prices, is_missing=key in self.remote))

    def finish_download(self, key: InstanceKey) -> None:
        self.remote.discard(key)
        self.feed(events.Downloaded(instance=key, generation=self.book.downloads[key]))

    # Requests

    def _ask(self, choices: Choices) -> bool:
        self._request_as(choices, [choices.pick(self.setup.models)])
        return True

    def _ask_several(self, choices: Choices) -> bool:
        wanted = {kind.key: kind for kind in (choices.pick(self.setup.models) for _ in range(2))}
        self._request_as(choices, list(wanted.values()))
        return True

    def _ask_by_hand(self, choices: Choices) -> bool:
        self._request_as(choices, [choices.pick(self.setup.models)], hold=False)
        return True

    def _request_as(self, choices: Choices, wanted: list[ModelKind], *, hold: bool = True) -> None:
        self.request(
            wanted,
            hold=hold,
            autoload=not choices.one_in(10),
            priority=choices.pick((0, 0, 0, 1)),
            keep_alive_seconds=choices.pick((None, None, None, None, 0.0, 15.0, 500.0, -1.0)),
            timeout_seconds=choices.pick((None, None, None, None, None, 20.0)),
        )

    def _leave(self, choices: Choices) -> bool:
        if not self.book.requests:
            return False
        self.feed(events.Cancelled(choices.pick(sorted(self.book.requests))))
        return True

    def _finish(self, choices: Choices) -> bool:
        if not self.book.leases:
            return False
        self.feed(events.Released(choices.pick(sorted(self.book.leases))))
        return True

    # Workers

    def _in(self, choices: Choices, *phases: Phase) -> tuple[InstanceKey, Worker] | None:
        found = [each for each in self.book.workers.items() if each[1].phase in phases]
        return choices.pick(found) if found else None

    def _answer_price(self, choices: Choices) -> bool:
        waiting = list(self.book.price_wanted)
        if not waiting:
            return False
        key = choices.pick(waiting)
        if choices.one_in(20):
            failure = Failure(kind="ModelFileError", message="cannot be read")
            self.feed(events.PriceFailed(instance=key, failure=failure))
        else:
            self.answer_price(key)
        return True

    def _download(self, choices: Choices) -> bool:
        if not self.book.downloads:
            return False
        key = choices.pick(list(self.book.downloads))
        if choices.one_in(6):  # news of an earlier one, which was stopped
            old = self.book.downloads[key] - 1
            failure = Failure(kind="DownloadError", message="old news")
            self.feed(events.Downloaded(instance=key, generation=old))
            self.feed(events.DownloadFailed(instance=key, generation=old, failure=failure))
        else:
            self.finish_download(key)
        return True

    def _fail_download(self, choices: Choices) -> bool:
        if not self.book.downloads:
            return False
        key = choices.pick(list(self.book.downloads))
        failure = Failure(kind="DownloadError", message="the hub is gone")
        generation = self.book.downloads[key]
        self.feed(events.DownloadFailed(instance=key, generation=generation, failure=failure))
        return True

    def _load(self, choices: Choices) -> bool:
        found = self._in(choices, "loading", "waking")
        if found is None:
            return False
        key, worker = found
        self.finish_load(key, worker, self._measured(choices, worker))
        return True

    def _measured(self, choices: Choices, worker: Worker) -> Mapping[str, int] | None:
        """Return what the worker holds: mostly a little less than was thought."""
        parts = choices.pick((None, 4, 3, 4, 3, 2, 4, 5))
        if parts is None:
            return None
        if worker.price is None:
            return {self.setup.pools[0]: 10 * parts} if choices.one_in(2) else None
        return {pool: size * parts // 4 for pool, size in worker.price.bytes_by_pool.items()}

    def _fail_load(self, choices: Choices) -> bool:
        return self._fail(choices, out_of_memory=False)

    def _run_out_of_memory(self, choices: Choices) -> bool:
        return self._fail(choices, out_of_memory=True)

    def _fail(self, choices: Choices, *, out_of_memory: bool) -> bool:
        found = self._in(choices, "loading", "waking")
        if found is None:
            return False
        key, worker = found
        failure = Failure(kind="ModelLoadError", message="it did not work")
        self.feed(
            events.LoadFailed(
                instance=key,
                generation=worker.generation,
                failure=failure,
                out_of_memory=out_of_memory,
            )
        )
        return True

    def _defer(self, choices: Choices) -> bool:
        found = self._in(choices, "loading", "waking")
        if found is None:
            return False
        key, worker = found
        # Others took the room, or are about to: only the first can be seen.
        if choices.one_in(2):
            for pool in worker.price.bytes_by_pool if worker.price is not None else ():
                if pool in self.others:
                    self.others[pool] = choices.pick((90, 60, 100))
        self._look(())
        if self.book.workers.get(key) is worker and worker.phase in ("loading", "waking"):
            self.feed(
                events.Deferred(
                    instance=key, generation=worker.generation, reason="others took the room"
                )
            )
        return True

    def _exit(self, choices: Choices) -> bool:
        found = self._in(choices, "stopping")
        if found is None:
            return False
        self.exit(*found)
        return True

    def _crash(self, choices: Choices) -> bool:
        found = self._in(choices, "ready", "loading", "asleep", "falling_asleep", "waking")
        if found is None:
            return False
        self.exit(*found, reason="it crashed")
        return True

    def _fall_asleep(self, choices: Choices) -> bool:
        found = self._in(choices, "falling_asleep")
        if found is None:
            return False
        key, worker = found
        measured: Mapping[str, int] | None = None
        if worker.price is not None and not choices.one_in(4):
            part = choices.pick((5, 4, 2, 1)) if worker.level == "full" else 1
            measured = {pool: size // part for pool, size in worker.low.items()}
        self.fall_asleep(key, worker, measured)
        return True

    def _wake(self, choices: Choices) -> bool:
        found = self._in(choices, "waking")
        if found is None:
            return False
        self.finish_load(*found, measured=self._measured(choices, found[1]))
        return True

    def _send_stale_news(self, choices: Choices) -> bool:
        """Let news arrive that was sent before its worker was told to go, or by an older one."""
        if not self.book.workers:
            return False
        key, worker = choices.pick(list(self.book.workers.items()))
        generation = worker.generation
        if worker.phase not in ("stopping", "asleep"):
            generation -= 1
        news: tuple[events.Event, ...] = (
            events.Loaded(instance=key, generation=generation),
            events.Woke(instance=key, generation=generation),
            events.Slept(instance=key, generation=generation),
            events.WorkerExited(instance=key, generation=generation - 1, reason="old"),
        )
        self.feed(choices.pick(news))
        return True

    # The machine

    def _observe(self, choices: Choices) -> bool:
        for pool in self.setup.pools:
            self.others[pool] = choices.pick((0, 0, 10, 30, 60))
        seen = [each for each in self.book.workers.items() if choices.one_in(3)]
        self._look(seen, choices)
        return True

    def _look(
        self, seen: list[tuple[InstanceKey, Worker]] | tuple[()], choices: Choices | None = None
    ) -> None:
        """Let the pools be seen, and what the workers *seen* hold."""
        pools = {
            pool: PoolReading(total_bytes=POOL_SIZE, free_bytes=POOL_SIZE - others, margin_bytes=5)
            for pool, others in self.others.items()
        }
        held = {
            key: {
                pool: size * (choices or Choices(b"")).pick((4, 3, 5)) // 4
                for pool, size in worker.low.items()
            }
            for key, worker in seen
        }
        self.feed(events.MemoryObserved(pools=pools, instances=held))

    def _hold(self, choices: Choices) -> bool:
        """Let something of ours that is no instance say what it holds now."""
        sheddable = choices.one_in(2)
        size = choices.pick((5, 0, 20, 40) if sheddable else (5, 0, 10))
        pool = choices.pick(self.setup.pools)
        holder = "cache" if sheddable else "spare"
        held = events.Held(
            holder=holder, bytes_by_pool={pool: size} if size else {}, sheddable=sheddable
        )
        self.feed(held)
        return True

    def _let_time_pass(self, choices: Choices) -> bool:
        self.pass_time(choices.pick((1.0, 0.0, 3.0, 10.0, 31.0)))
        return True

    def _wait_for_timer(self, choices: Choices) -> bool:
        if self.book.timer is None:
            return False
        self.pass_time(max(0.0, self.book.timer - self.book.now))
        return True

    # People

    def _unload(self, choices: Choices) -> bool:
        kind = choices.pick(self.setup.models)
        force = choices.one_in(3)
        self.feed(events.Unload(instance=kind.key, model=kind.name, force=force))
        return True

    def _put_to_sleep(self, choices: Choices) -> bool:
        kind = choices.pick(self.setup.models)
        self.feed(events.PutToSleep(instance=kind.key, level=choices.pick(LEVELS)))
        return True

    def _predict(self, choices: Choices) -> bool:
        kind = choices.pick(self.setup.models)
        self.feed(events.Predicted(instance=kind.key, model=kind.name))
        return True

    def _say_anew(self, choices: Choices) -> bool:
        """Say something else of a model; groups stay, for they are kept at admission."""
        name = choices.pick(sorted(self.models))
        now = self.book.terms[name]
        terms = random_terms(choices, self.mix, self.setup.limits)
        self.feed(
            events.Catalogued(
                terms={
                    **self.book.terms,
                    name: type(terms)(
                        priority=terms.priority,
                        pinned=terms.pinned,
                        sleep_idle_seconds=terms.sleep_idle_seconds,
                        sleep_level=terms.sleep_level,
                        unload_idle_seconds=terms.unload_idle_seconds,
                        evict_to=terms.evict_to,
                        exclusive_groups=now.exclusive_groups,
                        companions=now.companions,
                    ),
                }
            )
        )
        return True
