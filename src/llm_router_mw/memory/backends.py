"""Which kinds of devices the installed llama.cpp can use, told without loading any of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from llm_router_mw.types import DeviceKind

_LIBRARY = re.compile(r"(?:lib)?ggml-([a-z]+)[\w.-]*\.(?:so|dylib|dll)")
_NO_DEVICES = {"base", "cpu", "blas"}
_KINDS: dict[str, DeviceKind] = {kind: kind for kind in get_args(DeviceKind)} | {"hip": "rocm"}
_FOLDER = "LLAMA_CPP_LIB_PATH"
"""Variable that has the bindings look for the libraries elsewhere."""


def installed_backends(environ: Mapping[str, str]) -> frozenset[DeviceKind]:
    """Return the kinds of GPUs that a worker with the variables *environ* could use.

    Each backend of ggml is a library of its own, beside the others.
    """
    folder = library_folder(environ)
    if folder is None or not folder.is_dir():
        return frozenset()
    matches = [_LIBRARY.fullmatch(file.name) for file in folder.iterdir()]
    names = {match[1] for match in matches if match} - _NO_DEVICES
    return frozenset(_KINDS.get(name, "other") for name in names)


def library_folder(environ: Mapping[str, str]) -> Path | None:
    """Return where the libraries of llama.cpp lie; None if it is not installed."""
    if _FOLDER in environ:
        return Path(environ[_FOLDER])
    package = find_spec("llama_cpp")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "lib"
