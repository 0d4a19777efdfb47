"""Traces as lines, and what is wrong with some."""

from __future__ import annotations

import pytest

from llm_router_mw.errors import ConfigError
from llm_router_mw.simulator.trace import Ask, ModelFacts, Trace, read_trace, trace_lines

MODEL = '{"model": "a", "size_bytes": 100, "load_seconds": 2.0}'
REQUEST = '{"time": 1.5, "model": "a"}'


def everything(*lines: str) -> list[Ask]:
    return list(read_trace(lines).asks)


def test_models_come_first_and_then_requests() -> None:
    trace = read_trace([MODEL, "", REQUEST, '{"time": 2, "model": "a", "tokens": 7, "key": "k"}'])

    assert trace.models == {"a": ModelFacts(model="a", size_bytes=100, load_seconds=2.0)}
    assert list(trace.asks) == [
        Ask(time=1.5, model="a"),
        Ask(time=2.0, model="a", tokens=7, key="k"),
    ]


def test_requests_are_read_when_they_are_needed() -> None:
    trace = read_trace(iter([MODEL, REQUEST, "nonsense"]))

    assert next(trace.asks) == Ask(time=1.5, model="a")


def test_a_trace_is_read_as_it_was_written() -> None:
    models = {"a": ModelFacts(model="a", size_bytes=100, load_seconds=2.0, parallel=2)}
    asks = [Ask(time=0.5, model="a", priority=3), Ask(time=0.5, model="a", tokens=1)]

    trace = read_trace(trace_lines(Trace(models, iter(asks))))

    assert trace.models == models
    assert list(trace.asks) == asks


def test_a_trace_without_requests_is_one() -> None:
    assert everything(MODEL) == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["nonsense"], "line 1: .*each line must be a JSON object"),
        (["[]"], "line 1 is no JSON object"),
        ([MODEL, '{"model": "b", "size_bytes": 1}'], "line 2: .*load_seconds"),
        ([MODEL, '{"model": "b", "size": 1}'], "line 2: .*size.*describes a model"),
        ([MODEL, MODEL], "line 2: model 'a' is described twice"),
        ([MODEL, "", '{"time": 1, "model": "b"}'], "line 3: nothing is known of model 'b'"),
        ([MODEL, REQUEST, '{"time": 1, "model": "a"}'], "line 3: its time, 1, is before 1.5"),
        ([MODEL, '{"time": -1, "model": "a"}'], "line 2: its time, -1, is before 0"),
        ([MODEL, '{"time": "x", "model": "a"}'], "line 2: .*float.*a request is a time"),
        ([MODEL, REQUEST, "nonsense"], "line 3: "),
        ([MODEL, REQUEST, MODEL.replace('"a"', '"b"')], "line 3: models are described before"),
        ([MODEL, '{"time": 1, "model": "a", "tokens": -1}'], "line 2: tokens is -1"),
    ],
)
def test_a_line_that_is_wrong_is_named(lines: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        everything(*lines)


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ('"size_bytes": 0', "size_bytes must be above 0"),
        ('"context_bytes": -1', "no part of it below 0"),
        ('"context_bytes": 60, "overhead_bytes": 60', "cannot exceed it"),
        ('"load_seconds": -1', "must be 0 or more"),
        ('"wake_seconds": -1', "must be 0 or more"),
        ('"tokens_per_second": 0', "must be above 0"),
        ('"parallel": 0', "must be 1 or more"),
    ],
)
def test_facts_that_cannot_be_are_refused(field: str, problem: str) -> None:
    # Of two members with one name the last counts.
    line = MODEL[:-1] + f", {field}}}"

    with pytest.raises(ConfigError, match=f"line 1: model 'a': .*{problem}"):
        everything(line)


def test_lines_may_be_bytes() -> None:
    trace = read_trace([MODEL.encode(), REQUEST.encode(), b"\xff"])

    assert next(trace.asks).model == "a"
    with pytest.raises(ConfigError, match="line 3: "):
        next(trace.asks)
