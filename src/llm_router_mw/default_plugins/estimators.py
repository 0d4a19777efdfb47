"""The estimators of memory that come with the package, the best informed one first."""

from __future__ import annotations

import os
from pathlib import Path

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.memory.dry_run import DryRunEstimator
from llm_router_mw.memory.file_size import FileSizeEstimator
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.model_file import ModelFiles
from llm_router_mw.memory.observed import ObservedEstimator
from llm_router_mw.memory.overhead import BackendOverhead
from llm_router_mw.protocols import Estimator
from llm_router_mw.router.process import worker_environment


@hookimpl
def llm_router_register_estimators(config: RouterConfig) -> list[Estimator]:
    """Supply estimators that share what they read and learn.

    They see the llama.cpp that a worker would see: it inherits part of our environment.
    """
    environ = worker_environment(os.environ)
    folder = Path(config.observations_dir) if config.observations_dir else None
    overhead, files = BackendOverhead(), ModelFiles()
    return [
        ObservedEstimator(environ, folder, overhead=overhead, files=files),
        DryRunEstimator(environ, overhead=overhead, files=files),
        MetadataEstimator(overhead, files),
        FileSizeEstimator(),
    ]
