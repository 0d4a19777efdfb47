"""Finds the model that a request names."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Sequence

from llm_router_mw.catalog.paths import is_utf8
from llm_router_mw.errors import (
    ConfigError,
    LLMRouterError,
    ModelFileError,
    ModelNotFoundError,
)
from llm_router_mw.faults import Faults
from llm_router_mw.gguf import GGUFHeader, read_headers, shards
from llm_router_mw.protocols import ModelResolver, ModelSource
from llm_router_mw.types import Model

_SHOWN_CHARACTERS = 100
"""Of a name that was not found; a request may send a very long one."""

_log = logging.getLogger("llm_router_mw.catalog")

Stamp = tuple[tuple[int, int, int], ...]


class Catalog:
    """All models of the *sources*, as they are when the catalog is built (which reads disks).

    Where two sources know a model of one name, the earlier source wins. The *resolvers* are asked
    in turn for a name that no model has. A source or a resolver that fails is told to *faults*, and
    done without.

    Raises:
        ConfigError: a source's directory is unusable, or two names collide.
    """

    def __init__(
        self,
        sources: Iterable[ModelSource],
        resolvers: Iterable[ModelResolver] = (),
        faults: Faults | None = None,
    ) -> None:
        self._resolvers = tuple(resolvers)
        self._faults = faults or Faults()
        self._models: dict[str, Model] = {}
        for source in sources:
            self._add_source(source)
        self._aliases = self._collect_aliases()
        self._checked: dict[str, tuple[Stamp, tuple[GGUFHeader, ...]]] = {}

    def models(self) -> tuple[Model, ...]:
        """Return all models, sorted by id."""
        return tuple(self._models[id] for id in sorted(self._models))

    def resolve(self, name: str) -> Model:
        """Return the model whose id or, else, alias is *name*, or the one that a resolver says.

        Raises:
            ModelNotFoundError: there is none.
        """
        model = self._named(name) or self._meant(name)
        if model is None:
            raise self._not_found(name)
        return model

    def _named(self, name: str) -> Model | None:
        return self._models.get(name) or self._aliases.get(name)

    def _meant(self, name: str) -> Model | None:
        for resolver in self._resolvers:
            try:
                meant = resolver.resolve(name, self.models())
                if meant is None:
                    continue
                if (model := self._named(meant)) is not None:
                    return model
                raise LookupError(f"it named {meant!r}, and there is no such model")
            except Exception as error:
                self._faults.add("model resolver", resolver.name, error)
        return None

    def check_file(self, model: Model) -> tuple[GGUFHeader, ...]:
        """Return the headers of the model's file, or of all its parts, once they are well-formed.

        Reads the disk; of files that have not changed since the last time, only their dates.

        Raises:
            ModelFileError: a file is missing or unreadable.
            InvalidGGUFError: a file is not a well-formed GGUF file.
        """
        # The stamp is taken before the reading: a change in between is seen the next time.
        stamp = _stamp(model.path)
        known = self._checked.get(model.path)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            headers = read_headers(model.path)
        except ModelFileError as error:
            # Clients see the error: where the file lies is for the log only.
            _log.warning("model %r at %s cannot be used: %s", model.id, model.path, error)
            raise
        if stamp:
            self._checked[model.path] = (stamp, headers)
        return headers

    def _add_source(self, source: ModelSource) -> None:
        mine: dict[str, Model] = {}
        for model in self._models_of(source):
            _check_name(model.id, f"the id of the model at {model.path!r}")
            if not is_utf8(model.path):
                raise ConfigError(
                    f"the path {model.path!r} of model {model.id!r} is not UTF-8; rename the file"
                )
            if model.id in mine:
                raise ConfigError(
                    f"{source.name} has two models named {model.id!r}: {mine[model.id].path} and "
                    f"{model.path}; rename one of them"
                )
            mine[model.id] = model
        for id in sorted(mine.keys() & self._models.keys()):
            winner = self._models[id]
            _log.info("model %r of %s is hidden by the one of %s", id, source.name, winner.source)
        self._models = mine | self._models

    def _models_of(self, source: ModelSource) -> list[Model]:
        try:
            found = list(source.models())
            if not all(isinstance(each, Model) for each in found):
                raise TypeError(f"it said that there is {found!r}; only a Model is a model")
        except LLMRouterError:
            raise  # it says what the user has to mend
        except Exception as error:
            self._faults.add("model source", source.name, error)
            return []
        return found

    def _collect_aliases(self) -> dict[str, Model]:
        owners = dict(self._models)
        aliases: dict[str, Model] = {}
        for model in self.models():
            for alias in model.aliases:
                _check_name(alias, f"an alias of model {model.id!r}")
                other = owners.setdefault(alias, model)
                if other is not model or alias in aliases or alias == model.id:
                    raise ConfigError(
                        f"the alias {alias!r} of model {model.id!r} is already a name of model "
                        f"{other.id!r}; names must be unique"
                    )
                aliases[alias] = model
        return aliases

    def _not_found(self, name: str) -> ModelNotFoundError:
        asked = name[:_SHOWN_CHARACTERS] + "…" * (len(name) > _SHOWN_CHARACTERS)
        if not self._models:
            hint = "there are no models: put .gguf files into models_dir, or name some in models"
        else:
            close = _close_names(name[:_SHOWN_CHARACTERS], [*self._models, *self._aliases])
            meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            hint = f"{meant}GET /v1/models lists all models"
        return ModelNotFoundError(f"model {asked!r} not found; {hint}", param="model")


def _check_name(name: str, what: str) -> None:
    if not name.strip() or not is_utf8(name):
        raise ConfigError(f"{what} is {name!r}; it must be text, and not empty")


def _close_names(name: str, names: Sequence[str]) -> list[str]:
    """Return the *names* that *name* may be a slip of, the closest first."""
    by_lower = {known.lower(): known for known in names}
    return [by_lower[lower] for lower in difflib.get_close_matches(name.lower(), by_lower)]


def _stamp(path: str) -> Stamp:
    """Return what changes when a file of the model does; empty if one is missing."""
    try:
        stats = [os.stat(part) for part in shards(path)]
    except (OSError, ValueError, ModelFileError):
        return ()
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
