"""The estimators that come with the package."""

from __future__ import annotations

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins.estimators import llm_router_register_estimators
from llm_router_mw.protocols import Estimator


def test_what_was_seen_comes_first_and_the_size_of_the_file_last() -> None:
    estimators = llm_router_register_estimators(RouterConfig())
    names = [estimator.name for estimator in estimators]
    assert names == ["observed", "dry-run", "metadata", "file-size"]
    assert all(isinstance(estimator, Estimator) for estimator in estimators)
