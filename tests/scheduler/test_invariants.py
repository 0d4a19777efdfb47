"""What holds after every step, over random arrivals, departures, crashes and failures."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm_router_mw.scheduler import actions, events
from llm_router_mw.types import Failure, InstanceState
from tests.support.scheduling import World, key

NAMES = "abcde"
HOLDING = {
    InstanceState.LOADING,
    InstanceState.LOADED,
    InstanceState.DRAINING,
    InstanceState.STOPPING,
}
names = st.sampled_from(NAMES)


class SchedulerMachine(RuleBasedStateMachine):
    """A world in which anything may happen at any time."""

    @initialize(models_max=st.integers(1, 4), max_wait=st.sampled_from([0.0, 5.0, 30.0]))
    def begin(self, models_max: int, max_wait: float) -> None:
        self.models_max = models_max
        self.world = World(models_max=models_max, max_wait=max_wait, queue_timeout=200.0)
        self.open: dict[int, tuple[str, ...]] = {}
        """Requests without an answer."""
        self.held: dict[int, tuple[str, ...]] = {}
        """Requests that hold leases."""
        self.alive: set[str] = set()
        """Models whose worker has been started and has not exited."""

    def step(self, event: events.Event) -> None:
        leased = {
            instance.key.path: set(instance.leases) for instance in self.world.scheduler.instances()
        }
        released = event.lease if isinstance(event, events.Released) else None
        revoked: set[int] = set()
        for action in self.world.scheduler.decide(event, self.world.now):
            self.world._note(action)
            match action:
                case actions.Start(instance):
                    assert instance.path not in self.alive, "one worker per instance"
                    self.alive.add(instance.path)
                    assert len(self.alive) <= self.models_max, "the slot was not free"
                case actions.Revoke(lease):
                    revoked.add(lease)
                case actions.Stop(instance):
                    left = leased.get(instance.path, set()) - revoked - {released}
                    assert not left, "a leased instance is never stopped"
                case actions.Grant(request):
                    self.held[request] = self.open.pop(request)
                    for name in self.held[request]:
                        granted = (InstanceState.LOADED, InstanceState.DRAINING)
                        assert self.world.state(name) in granted
                case actions.Reject(request):
                    del self.open[request]

    @rule(wanted=st.lists(names, min_size=1, max_size=2, unique=True))
    def ask(self, wanted: list[str]) -> None:
        self.world._next_request += 1
        request = self.world._next_request
        self.open[request] = tuple(wanted)
        self.step(
            events.Request(id=request, instances=tuple(map(key, wanted)), models=tuple(wanted))
        )

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[request]
        self.step(events.Cancelled(request))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[request]
        for lease in self.world.granted[request]:
            self.step(events.Released(lease))

    def _in_state(self, *states: InstanceState) -> list[str]:
        return [name for name in NAMES if self.world.state(name) in states]

    @precondition(lambda self: self._in_state(InstanceState.LOADING))
    @rule(data=st.data(), works=st.booleans())
    def settle(self, data: st.DataObject, works: bool) -> None:
        name = data.draw(st.sampled_from(self._in_state(InstanceState.LOADING)))
        generation = self.world.generation(name)
        if works:
            self.step(events.Loaded(instance=key(name), generation=generation))
        else:
            failure = Failure(kind="ModelLoadError", message="no")
            self.step(events.LoadFailed(instance=key(name), generation=generation, failure=failure))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.discard(name)
        self.step(
            events.WorkerExited(
                instance=key(name), generation=self.world.generation(name), reason="gone"
            )
        )

    @rule(name=names, force=st.booleans())
    def unload(self, name: str, force: bool) -> None:
        self.step(events.Unload(instance=key(name), model=name, force=force))

    @rule(seconds=st.sampled_from([0.0, 1.0, 10.0, 50.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.step(events.Tick())

    @invariant()
    def slots_are_never_oversold(self) -> None:
        if hasattr(self, "world"):
            assert len(self._in_state(*HOLDING)) <= self.models_max

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        if hasattr(self, "world"):
            for wanted in self.open.values():
                assert any(self.world.state(name) is not InstanceState.LOADED for name in wanted)

    @invariant()
    def nothing_loads_unwanted(self) -> None:
        if hasattr(self, "world"):
            wanted = {name for request in self.open.values() for name in request}
            assert set(self._in_state(InstanceState.LOADING)) <= wanted

    @invariant()
    def an_idle_house_never_makes_anyone_wait(self) -> None:
        """With no lease anywhere and no load or stop under way, no request is left waiting."""
        if hasattr(self, "world") and not self.held:
            moving = self._in_state(InstanceState.LOADING, InstanceState.STOPPING)
            assert moving or not self.open

    def teardown(self) -> None:
        """Let everything end well: every request that is still open gets its answer."""
        if not hasattr(self, "world"):
            return
        for _ in range(500):
            if not self.open and not self.held:
                return
            for request in list(self.held):
                self.finish_one(request)
            for name in self._in_state(InstanceState.LOADING):
                generation = self.world.generation(name)
                self.step(events.Loaded(instance=key(name), generation=generation))
            for name in self._in_state(InstanceState.STOPPING):
                self.alive.discard(name)
                generation = self.world.generation(name)
                self.step(
                    events.WorkerExited(instance=key(name), generation=generation, reason="gone")
                )
        raise AssertionError(f"never answered: {self.open}")

    def finish_one(self, request: int) -> None:
        del self.held[request]
        for lease in self.world.granted[request]:
            self.step(events.Released(lease))


TestScheduler = pytest.mark.timeout(300)(SchedulerMachine.TestCase)
TestScheduler.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
