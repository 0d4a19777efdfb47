"""What a remembered figure is good for: the same files, the same llama.cpp."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf import shards
from llm_router_mw.memory.backends import library_folder
from llm_router_mw.types import Model

FileIdentity = tuple[str, int, int]
"""Real path, size in bytes, time of the last change in nanoseconds."""


def model_files(model: Model) -> tuple[FileIdentity, ...]:
    """Return which files *model* is loaded from: all parts, and the adapters.

    Raises:
        ModelFileError: one is missing.
    """
    paths = [*shards(model.path), *(Path(adapter.path) for adapter in model.options.lora)]
    return tuple(_identity(path) for path in paths)


def llama_build(environ: Mapping[str, str]) -> str:
    """Return which llama.cpp a worker with the variables *environ* uses; empty if there is none."""
    folder = library_folder(environ)
    return _build(folder) if folder is not None and folder.is_dir() else ""


@cache
def _build(folder: Path) -> str:
    try:
        release = version("llama-cpp-python")
    except PackageNotFoundError:
        release = "unknown"
    libraries = sorted(
        f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in folder.iterdir()
    )
    return " ".join([release, *libraries])


def _identity(path: Path) -> FileIdentity:
    try:
        found = os.stat(path)
    except OSError as error:
        raise ModelFileError(
            f"the file {path.name!r} cannot be used: {error.strerror}; check its path"
        ) from error
    return os.path.realpath(path), found.st_size, found.st_mtime_ns
