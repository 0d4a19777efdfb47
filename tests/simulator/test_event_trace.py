"""Events as lines, and back."""

from __future__ import annotations

import pytest

from llm_router_mw.errors import ConfigError
from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.terms import Companion, Terms
from llm_router_mw.simulator.event_trace import Setup, event_line, read_event_trace, setup_line
from llm_router_mw.types import Failure, InstanceKey, LoadOptions, Placement, PoolReading, Price

PLAIN = InstanceKey("a", LoadOptions())
LONG = InstanceKey("b", LoadOptions(n_ctx=4096))
PRICE = Price(placement=Placement(devices=("gpu",)), bytes_by_pool={"gpu": 7})
FAILURE = Failure(kind="ModelLoadError", message="no", fields={"status": 502})
EVENTS: list[events.Event] = [
    events.Request(id=1, instances=(PLAIN, LONG), models=("a", "b"), keep_alive_seconds=0),
    events.Cancelled(1),
    events.Released(2),
    events.Unload(instance=PLAIN, model="a", force=True),
    events.PutToSleep(instance=PLAIN, level="context"),
    events.Predicted(instance=LONG, model="b"),
    events.Priced(instance=LONG, prices=(PRICE,)),
    events.PriceFailed(instance=PLAIN, failure=FAILURE),
    events.Priced(instance=PLAIN, prices=(), is_missing=True),
    events.Downloaded(instance=PLAIN, generation=1),
    events.DownloadFailed(instance=PLAIN, generation=1, failure=FAILURE),
    events.Loaded(instance=PLAIN, generation=1, load_seconds=2.5, measured={"gpu": 6}),
    events.LoadFailed(instance=PLAIN, generation=1, failure=FAILURE, out_of_memory=True),
    events.Deferred(instance=PLAIN, generation=1, reason="somebody else was first"),
    events.Slept(instance=PLAIN, generation=1, sleep_seconds=0.5),
    events.Woke(instance=PLAIN, generation=1, wake_seconds=1.5),
    events.WorkerExited(instance=PLAIN, generation=1, reason="exited with code 0"),
    events.MemoryObserved(
        pools={"gpu": PoolReading(total_bytes=9, free_bytes=8)}, instances={LONG: {"gpu": 7}}
    ),
    events.Held(holder="saved", bytes_by_pool={"gpu": 5}, sheddable=True),
    events.Catalogued(
        terms={"a": Terms(pinned=True, companions=(Companion(model="b", instance=LONG),))}
    ),
    events.Tick(),
    events.Shutdown(),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_read_as_it_was_written(event: events.Event) -> None:
    _, read = read_event_trace([event_line(1.5, event)])

    assert list(read) == [(1.5, event)]


def test_every_event_is_tried_above() -> None:
    assert {type(event) for event in EVENTS} == set(events.Event.__args__)


def test_the_first_line_says_how_the_scheduler_was_made() -> None:
    setup = Setup(policy="lfu", limits=Limits(models_max=2))

    read, lines = read_event_trace([setup_line(setup), "", event_line(0.0, events.Tick())])

    assert read == setup
    assert list(lines) == [(0.0, events.Tick())]


def test_without_it_the_scheduler_is_as_by_default() -> None:
    setup, _ = read_event_trace([event_line(0.0, events.Tick())])

    assert setup == Setup()


def test_an_instance_is_written_with_what_is_special_about_it() -> None:
    plain = event_line(0.0, events.Predicted(instance=PLAIN, model="a"))
    long = event_line(0.0, events.Predicted(instance=LONG, model="b"))

    assert '"instance":{"path":"a"}' in plain
    assert '"instance":{"path":"b","options":{"n_ctx":4096}}' in long


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "the trace of events is empty"),
        (['{"polcy": "lru"}'], "line 1: .*polcy"),
        (['{"at": 1, "type": "Tick", "event": {}}', "", "{"], "line 3: "),
        (['{"at": 1, "type": "Tock", "event": {}}'], "line 1: there is no event 'Tock'; .*Tick"),
        (['{"at": 1, "type": "Released", "event": {}}'], "line 1: Released: .*lease"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(lines: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        list(read_event_trace(lines)[1])
