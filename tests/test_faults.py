"""Failures of plugins' objects: counted, and logged once."""

from __future__ import annotations

import logging
from threading import Thread

import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.faults import Faults


def test_failures_are_counted_by_object() -> None:
    faults = Faults()
    faults.add("observer", "mine", ValueError("one"))
    faults.add("observer", "mine", ValueError("two"))
    faults.add("device probe", "mine", ValueError("three"))
    assert faults.counts == {"observer 'mine'": 2, "device probe 'mine'": 1}


def test_only_the_first_failure_of_an_object_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults()
    for text in ("one", "two"):
        faults.add("observer", "mine", ValueError(text))
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "observer 'mine' failed: one; its further failures are counted only"
    )
    assert record.exc_info is not None


def test_our_own_errors_need_no_traceback_and_a_bare_one_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = Faults()
    faults.add("estimator", "mine", ModelFileError("it is broken"))
    faults.add("estimator", "yours", KeyError())
    ours, bare = caplog.records
    assert not ours.exc_info
    assert "'yours' failed: KeyError;" in bare.getMessage()


def test_threads_lose_no_count() -> None:
    faults = Faults()
    threads = [Thread(target=_add_often, args=(faults,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults.counts == {"device probe 'mine'": 4000}


def _add_often(faults: Faults) -> None:
    for _ in range(1000):
        faults.add("device probe", "mine", ValueError("again"))
