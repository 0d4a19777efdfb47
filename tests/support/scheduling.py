"""A scheduler with a clock that the test turns, and a world that obeys its actions."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.protocols import Candidate, EvictionPolicy
from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.types import Failure, InstanceKey, InstanceState, LoadOptions


class Lru:
    """The default order."""

    name = "lru"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: int, now: float
    ) -> Sequence[Candidate]:
        return sorted(candidates, key=lambda candidate: candidate.last_used_seconds)


def key(name: str) -> InstanceKey:
    return InstanceKey(name, LoadOptions())


class World:
    """Feeds a scheduler and remembers what it wanted, in words short enough for assertions."""

    def __init__(
        self,
        *,
        models_max: int = 1,
        max_queue: int = 0,
        max_wait: float = 30.0,
        queue_timeout: float = 600.0,
        max_lease: float = 3600.0,
        policy: EvictionPolicy | None = None,
    ) -> None:
        self.scheduler = Scheduler(
            policy or Lru(),
            models_max=models_max,
            max_queue=max_queue,
            max_wait_seconds=max_wait,
            queue_timeout_seconds=queue_timeout,
            max_lease_seconds=max_lease,
        )
        self.now = 0.0
        self.did: list[str] = []
        self.granted: dict[int, tuple[int, ...]] = {}
        self.rejected: dict[int, Failure] = {}
        self.revoked: dict[int, Failure] = {}
        self.timer: float | None = None
        self._next_request = 0

    def send(self, event: events.Event) -> list[str]:
        """Feed *event*; return the new starts, stops, kills, grants and rejects."""
        before = len(self.did)
        for action in self.scheduler.decide(event, self.now):
            self._note(action)
        return self.did[before:]

    def ask(self, *names: str, autoload: bool = True, hold: bool = True) -> int:
        """Request *names*; return the request's id."""
        self._next_request += 1
        self.send(
            events.Request(
                id=self._next_request,
                instances=tuple(map(key, names)),
                models=names,
                autoload=autoload,
                hold=hold,
            )
        )
        return self._next_request

    def loaded(self, name: str) -> list[str]:
        return self.send(
            events.Loaded(instance=key(name), generation=self.generation(name), load_seconds=1.0)
        )

    def load_failed(self, name: str, message: str = "no memory") -> list[str]:
        failure = Failure(kind="ModelLoadError", message=message)
        return self.send(
            events.LoadFailed(instance=key(name), generation=self.generation(name), failure=failure)
        )

    def exited(self, name: str) -> list[str]:
        return self.send(
            events.WorkerExited(
                instance=key(name), generation=self.generation(name), reason="exited with code 0"
            )
        )

    def release(self, request: int) -> list[str]:
        """End all leases that *request* was granted."""
        done: list[str] = []
        for lease in self.granted[request]:
            done += self.send(events.Released(lease))
        return done

    def cancel(self, request: int) -> list[str]:
        return self.send(events.Cancelled(request))

    def unload(self, name: str, *, model: str | None = None, force: bool = False) -> list[str]:
        return self.send(events.Unload(instance=key(name), model=model or name, force=force))

    def tick(self, seconds: float = 0.0) -> list[str]:
        self.now += seconds
        self.timer = None
        return self.send(events.Tick())

    def serve(self, name: str) -> int:
        """Load *name* and leave it leased; return the request."""
        request = self.ask(name)
        self.loaded(name)
        assert request in self.granted
        return request

    def idle(self, name: str) -> None:
        """Load *name* and leave it idle; time passes, so that ages differ."""
        self.now += 1.0
        self.release(self.serve(name))

    def state(self, name: str) -> InstanceState:
        instance = self.scheduler.instance(key(name))
        return instance.state if instance is not None else InstanceState.UNLOADED

    def generation(self, name: str) -> int:
        instance = self.scheduler.instance(key(name))
        assert instance is not None
        return instance.generation

    def _note(self, action: actions.Action) -> None:
        match action:
            case actions.Start(instance):
                self.did.append(f"start {instance.path}")
            case actions.Stop(instance):
                self.did.append(f"stop {instance.path}")
            case actions.Kill(instance):
                self.did.append(f"kill {instance.path}")
            case actions.Grant(request, leases):
                self.granted[request] = leases
                self.did.append(f"grant {request}")
            case actions.Reject(request, failure):
                self.rejected[request] = failure
                self.did.append(f"reject {request}: {failure.kind}")
            case actions.Revoke(lease, failure):
                self.revoked[lease] = failure
            case actions.SetTimer(at_seconds):
                self.timer = at_seconds
