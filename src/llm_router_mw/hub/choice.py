"""Which files of a repository make the model that was asked for: llama-server's rules."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf import part_names
from llm_router_mw.hub_reference import HubReference

_SUFFIX = ".gguf"
_DEFAULTS = ("Q4_K_M", "Q8_0")
_OTHERS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""In the names of files that go with a model, and are none."""
_SHOWN = 12


def chosen(paths: Iterable[str], reference: HubReference) -> tuple[str, ...]:
    """Return those of *paths* that make the model *reference* means, its parts in their order.

    Without a quantisation that is Q4_K_M, else Q8_0, else the first model of the repository.

    Raises:
        ModelFileError: there is no such model, or parts of it are missing.
    """
    all_paths = sorted(path for path in paths if path.endswith(_SUFFIX))
    found = _named(all_paths, reference) if reference.file else _quantised(all_paths, reference)
    if found is None:
        raise ModelFileError(
            f"{reference.repo} has no {_wanted(reference)}; {_offer(all_paths)}", param="model"
        )
    parts = _parts(found)
    there = set(all_paths)
    missing = next((part for part in parts if part not in there), None)
    if missing is not None:
        raise ModelFileError(
            f"{reference.repo} lacks {missing}, one of {len(parts)} parts of the model; choose "
            "another quantisation, or tell the repository's owner"
        )
    return parts


def _named(paths: list[str], reference: HubReference) -> str | None:
    return reference.file if reference.file in paths else None


def _quantised(paths: list[str], reference: HubReference) -> str | None:
    models = [path for path in paths if _is_model(path)]
    for quant in (reference.quant,) if reference.quant else _DEFAULTS:
        name = re.escape(quant)
        # Q4_0 is also a part of IQ4_0, which is meant only where there is nothing closer.
        for pattern in (rf"(?<![A-Za-z0-9]){name}[.-]", rf"{name}[.-]"):
            for path in models:
                if re.search(pattern, path, re.IGNORECASE):
                    return path
    return models[0] if models and not reference.quant else None


def _is_model(path: str) -> bool:
    name = posixpath.basename(path)
    return not any(other in name for other in _OTHERS)


def _parts(path: str) -> tuple[str, ...]:
    folder, name = posixpath.split(path)
    # One that claims to be of no parts is refused when it is read.
    return tuple(posixpath.join(folder, part) for part in part_names(name) or [name])


def _wanted(reference: HubReference) -> str:
    if reference.file:
        return f"file {reference.file}"
    return f"GGUF file of {reference.quant}" if reference.quant else "GGUF file"


def _offer(paths: list[str]) -> str:
    models = [path for path in paths if _is_model(path)]
    if not models:
        return "name a repository with GGUF files"
    more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
    return f"it has {', '.join(models[:_SHOWN])}{more}"
