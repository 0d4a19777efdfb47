"""Failures of plugins' objects: counted, and logged once."""

from __future__ import annotations

import logging

import pytest

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
