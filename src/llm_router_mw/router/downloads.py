"""The downloads of instances' files: begun and stopped as was decided, and what came of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from llm_router_mw.errors import DownloadError, LLMRouterError
from llm_router_mw.hub.hub import OnProgress
from llm_router_mw.protocols import Clock
from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceKey
from llm_router_mw.units import GIB

logger = logging.getLogger("llm_router_mw.router")

_TELL_EVERY_SECONDS = 0.5


class Download:
    """One generation of an instance: from the download action to its end."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.scope = anyio.CancelScope()
        self.progress = 0.0
        self.told_at_seconds = 0.0
        self.logged_tenths = 0


class Downloads:
    """Runs downloads in a task group of the router; what happens to them goes out as events."""

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        dispatch: Callable[[events.Event], None],
        fetch: Callable[[str, OnProgress], Awaitable[None]],
        on_progress: Callable[[InstanceKey, float], None],
        clock: Clock,
    ) -> None:
        """*fetch* brings the files of a path."""
        self._tasks = tasks
        self._dispatch = dispatch
        self._fetch = fetch
        self._on_progress = on_progress
        self._clock = clock
        self._downloads: dict[InstanceKey, Download] = {}

    def progress(self, key: InstanceKey) -> float | None:
        """Return which part of the files of *key* is here; None if they are not fetched now."""
        download = self._downloads.get(key)
        return None if download is None else download.progress

    def start(self, key: InstanceKey, generation: int) -> None:
        """Fetch the files of *key*. One that was stopped may still be ending: it is waited for."""
        download = self._downloads[key] = Download(generation)
        self._tasks.start_soon(self._run, key, download)

    def cancel(self, key: InstanceKey, generation: int) -> None:
        """Stop fetching."""
        download = self._downloads.get(key)
        if download is not None and download.generation == generation:
            download.scope.cancel()

    async def _run(self, key: InstanceKey, download: Download) -> None:
        with download.scope:
            outcome = await self._outcome(key, download)
        if self._downloads.get(key) is download:
            del self._downloads[key]
        if not download.scope.cancelled_caught:
            self._dispatch(outcome)

    async def _outcome(self, key: InstanceKey, download: Download) -> events.Event:
        def told(done: int, total: int) -> None:
            download.progress = done / total if total else 1.0
            tenths = int(download.progress * 10)
            if tenths > download.logged_tenths:
                download.logged_tenths = tenths
                logger.info("%s: %d %% of %.1f GiB downloaded", key, tenths * 10, total / GIB)
            now = self._clock()
            if now >= download.told_at_seconds + _TELL_EVERY_SECONDS:
                download.told_at_seconds = now
                self._on_progress(key, download.progress)

        try:
            await self._fetch(key.path, told)
        except LLMRouterError as error:
            failure = error.to_failure()
        except Exception as error:  # whatever is wrong with a disk must not end the router
            logger.exception("%s: its download failed", key)
            failure = DownloadError(f"the download failed: {error}").to_failure()
        else:
            return events.Downloaded(instance=key, generation=download.generation)
        return events.DownloadFailed(instance=key, generation=download.generation, failure=failure)
