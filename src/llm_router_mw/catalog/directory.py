"""Models that are found in a directory, by llama-server's rules for ``--models-dir``."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from llm_router_mw.catalog.paths import canonical, is_utf8
from llm_router_mw.errors import ConfigError
from llm_router_mw.gguf import first_shard, shard_stem
from llm_router_mw.types import LoadOptions, Model

_SUFFIX = ".gguf"
_COMPANION_PREFIXES = ("mtp-", "dspark-", "dflash-", "eagle3-")

_log = logging.getLogger("llm_router_mw.catalog")


class DirectorySource:
    """Supplies the option ``models_dir``: one model per GGUF file and per sub-directory of one.

    - A file is named as it is, without ``.gguf``. Parts (``…-00001-of-00003.gguf``) are one model.
    - A sub-directory gives its name to its first part or, else, its first file.
    - Hidden files and companions of models (projectors, drafts) are left out.
    - What cannot be used is listed all the same: a request for it says why.
    """

    name = "models_dir"

    def __init__(self, models_dir: str, options: LoadOptions) -> None:
        self._directory = models_dir
        self._options = options

    def models(self) -> Sequence[Model]:
        """Return the models that are there now, sorted by name.

        Raises:
            ConfigError: the directory itself cannot be read.
        """
        try:
            names = sorted(os.listdir(self._directory))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"models_dir {self._directory!r} cannot be read: {reason}; "
                "name an existing directory that holds .gguf files"
            ) from error
        found: dict[str, str] = {}
        for name in names:
            model = _find(name, os.path.join(self._directory, name))
            if model is not None:
                _add(found, model[0], canonical(model[1]))
        return [
            Model(id=id, path=path, source=self.name, options=self._options)
            for id, path in sorted(found.items())
        ]


def _add(found: dict[str, str], id: str, path: str) -> None:
    if not id.strip() or not is_utf8(id + path):
        _log.warning("models_dir: %r is left out, no request can name it; rename it", path)
    elif id not in found:
        found[id] = path
        if not os.path.exists(path):
            _log.warning("models_dir: %s does not exist; requests for %r will fail", path, id)
    elif found[id] != path:
        _log.warning("models_dir: %s is left out, %s has the same name", path, found[id])


def _find(name: str, path: str) -> tuple[str, str] | None:
    """Return id and path of the model at *path*, if there is one."""
    if os.path.isdir(path):
        file = None if name.startswith(".") else _file_in(path)
        return None if file is None else (name, file)
    if _is_left_out(name):
        return None
    if name.endswith(_SUFFIX):
        return shard_stem(name) or name.removesuffix(_SUFFIX), str(first_shard(path))
    # A broken link may have led to a sub-directory: it is not forgotten in silence.
    return (name, path) if os.path.islink(path) and not os.path.exists(path) else None


def _is_left_out(file_name: str) -> bool:
    lowered = file_name.lower()
    return lowered.startswith((".", *_COMPANION_PREFIXES)) or "mmproj" in lowered


def _file_in(directory: str) -> str | None:
    """Return the model's file in a sub-directory; the directory itself if it cannot be read."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        _log.warning("models_dir: %s cannot be read: %s", directory, error.strerror)
        return directory
    files = [
        name
        for name in names
        if name.endswith(_SUFFIX)
        and not _is_left_out(name)
        and not os.path.isdir(os.path.join(directory, name))
    ]
    if not files:
        return None
    chosen = next((name for name in files if shard_stem(name) is not None), files[0])
    return str(first_shard(os.path.join(directory, chosen)))
