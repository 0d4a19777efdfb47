"""Where the files of models lie: on this disk, or in the hub, from where they have yet to come."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread
from msgspec import structs

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import LLMRouterError, error_from
from llm_router_mw.hub import Hub
from llm_router_mw.hub.hub import OnProgress
from llm_router_mw.hub_reference import reference_of
from llm_router_mw.protocols import Clock
from llm_router_mw.types import Failure, Model

_PAUSE_SECONDS = 10.0
"""For which the hub is not asked again about a model of which it could not tell."""


async def open_library(
    stack: AsyncExitStack, config: RouterConfig, models: Iterable[Model], clock: Clock
) -> Library:
    """Return the library of *models*; *stack* then holds how its headers are removed.

    Raises:
        ConfigError: models have yet to come, and what it takes to fetch them is not installed.
    """
    hub = Hub(os.environ, token=config.hf_token, offline=config.offline)
    remote = [model for model in models if reference_of(model.path) is not None]
    folder = stack.enter_context(TemporaryDirectory(prefix="llm-router-mw-")) if remote else ""
    library = Library(hub, Path(folder), clock)
    await library.open(remote)
    return library


class Library:
    """The paths of models, as the catalog has them, and the files that they stand for.

    Of a model that has yet to come that is a file with nothing but its headers: whatever judges
    models can judge it, and nobody loads it, because it is downloaded before.
    """

    def __init__(self, hub: Hub, folder: Path, clock: Clock) -> None:
        """Keep headers in *folder*."""
        self._hub = hub
        self._folder = folder
        self._clock = clock
        self._files: dict[str, str] = {}
        self._headers: dict[str, str] = {}
        self._trouble: dict[str, tuple[float, Failure]] = {}
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def open(self, models: Iterable[Model]) -> None:
        """Look for the files of *models*.

        Raises:
            ConfigError: as above.
        """
        found = [await self.find(model.path) for model in models]
        if not all(found):
            self._hub.require_network()

    async def find(self, path: str) -> bool:
        """Look whether the file of *path* is here, so that it need not be downloaded."""
        reference = reference_of(path)
        if reference is None:
            return True
        found = await anyio.to_thread.run_sync(self._hub.find, reference)
        if found is None:
            self._files.pop(path, None)
        else:
            self._files[path] = str(found)
        return found is not None

    def is_missing(self, path: str) -> bool:
        """Tell whether the file of *path* was not here when it was last looked for."""
        return path not in self._files and reference_of(path) is not None

    def file(self, path: str) -> str:
        """Return the file to load, or to judge, for *path*."""
        return self._files.get(path) or self._headers.get(path, path)

    def located(self, model: Model) -> Model:
        """Return *model* with the path of its file."""
        return structs.replace(model, path=self.file(model.path))

    async def look_into(self, path: str) -> None:
        """See that there is a file for *path* by which it can be judged.

        Raises:
            ModelFileError: there is no such model in the hub, or we are offline.
            InvalidGGUFError: its header is not well-formed.
            DownloadError: the hub does not tell.
        """
        reference = reference_of(path)
        if reference is None or await self.find(path) or path in self._headers:
            return
        async with self._locks[path]:
            until, failure = self._trouble.get(path, (0.0, None))
            if failure is not None and self._clock() < until:
                raise error_from(failure)
            try:
                if path not in self._headers:
                    self._headers[path] = str(await self._hub.peek(reference, self._folder))
            except LLMRouterError as error:
                self._trouble[path] = self._clock() + _PAUSE_SECONDS, error.to_failure()
                raise

    async def download(self, path: str, on_progress: OnProgress) -> None:
        """Fetch the file of *path*; one that ended before its time goes on where it was.

        Raises:
            ModelFileError: as above.
            DownloadError: it cannot be fetched.
        """
        reference = reference_of(path)
        if reference is not None:
            self._files[path] = str(await self._hub.download(reference, on_progress))
