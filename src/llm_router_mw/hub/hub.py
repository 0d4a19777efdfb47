"""Models of the hub: found in the cache, judged by their headers, downloaded."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from llm_router_mw.errors import ConfigError, DownloadError, ModelFileError
from llm_router_mw.gguf import HeaderPrefix
from llm_router_mw.hub.cache import HubCache, cache_directory
from llm_router_mw.hub.choice import chosen
from llm_router_mw.hub.files import HubFile, Plan
from llm_router_mw.hub.space import DiskSpace
from llm_router_mw.hub_reference import HubReference

if TYPE_CHECKING:
    from llm_router_mw.hub.client import HubClient

OnProgress = Callable[[int, int], None]
"""Is told how many bytes are here, and how many there are in all."""

LOOK_SECONDS: Final = 60.0
"""How long it may take to learn what is in a repository, and to read headers."""
_TOKEN = re.compile(r"[!-~]+")


class Hub:
    """One hub, and its cache. Plans are remembered: what was judged is what is downloaded."""

    def __init__(
        self, environ: Mapping[str, str], *, token: str | None = None, offline: bool = False
    ) -> None:
        """*token* stands for ``HF_TOKEN``; an *offline* one never uses the network.

        Raises:
            ConfigError: the token is none.
        """
        self._environ = environ
        self._token = token or environ.get("HF_TOKEN", "").strip() or None
        if self._token is not None and not _TOKEN.fullmatch(self._token):
            raise ConfigError("hf_token (-hft, HF_TOKEN) holds characters that no token has")
        self._offline = offline
        self._cache = HubCache(cache_directory(environ))
        self._space = DiskSpace(self._cache)
        self._plans: dict[HubReference, Plan] = {}

    def find(self, reference: HubReference) -> Path | None:
        """Return the (first) file of a model, if all of it is in the cache. Reads the disk."""
        return self._cache.find(reference)

    def require_network(self) -> None:
        """Check that files can be fetched, as far as that can be told beforehand.

        Raises:
            ConfigError: what it takes is not installed, or misconfigured.
        """
        if not self._offline:
            self._address()

    async def peek(self, reference: HubReference, folder: Path) -> Path:
        """Read the headers of a model, and return the (first) file that stands for it in *folder*.

        These files have the names, sizes and headers of the real ones, and holes instead of
        weights: whatever judges a model by its file can judge it by them.

        Raises:
            ModelFileError: there is no such model, or we are offline.
            InvalidGGUFError: a header is not well-formed.
            DownloadError: the hub does not answer as it should.
        """
        async with self._looking(reference) as client:
            plan = await self._plan(client, reference)
            made: list[Path] = []
            for part in plan.parts:
                path = folder / plan.repo / plan.commit / part.path
                if not path.exists():
                    prefix = await client.prefix(plan, part)
                    await anyio.to_thread.run_sync(_write_holes, path, prefix, part)
                made.append(path)
            return made[0]

    async def download(self, reference: HubReference, on_progress: OnProgress) -> Path:
        """Fetch what is missing of a model into the cache; return its (first) file.

        If it is cancelled or fails, the next call goes on where it ended.

        Raises:
            ModelFileError: there is no such model, or we are offline.
            DownloadError: it cannot be fetched, has no room, or arrived damaged.
        """
        async with self._looking(reference) as client:
            plan = await self._plan(client, reference)
        name, done = str(reference), 0

        def told(size: int) -> None:
            on_progress(done + size, plan.size_bytes)

        try:
            await anyio.to_thread.run_sync(self._space.take, name, plan)
            async with await anyio.to_thread.run_sync(self._client) as client:
                from llm_router_mw.hub.transfer import fetch

                for part in plan.parts:
                    await fetch(client, self._cache, plan, part, told)
                    done += part.size_bytes
            await anyio.to_thread.run_sync(self._cache.remember, plan)
        except DownloadError as error:
            if not error.fields.get("passing"):
                self._plans.pop(reference, None)  # the repository may be another one by now
            raise
        except OSError as error:
            raise DownloadError(
                f"the hub's cache cannot be used: {error.strerror}; set HF_HUB_CACHE to a "
                "directory that can be written"
            ) from error
        finally:
            self._space.give_back(name)
        found = await anyio.to_thread.run_sync(self.find, reference)
        if found is None:
            raise DownloadError(f"{reference} has vanished from the cache; ask again")
        return found

    @asynccontextmanager
    async def _looking(self, reference: HubReference) -> AsyncIterator[HubClient]:
        """Hold a client for what must not take long."""
        if self._offline:
            raise ModelFileError(
                f"{reference} is not in the hub's cache, and offline is set; fetch it before, as "
                "with llm-router-mw serve --download-only"
            )
        try:
            with anyio.fail_after(LOOK_SECONDS):
                # It reads certificates: not on the event loop.
                async with await anyio.to_thread.run_sync(self._client) as client:
                    yield client
        except TimeoutError as error:
            raise DownloadError(
                f"the hub did not tell about {reference} within {LOOK_SECONDS:g} s; check the "
                "network, or ask again"
            ) from error

    def _client(self) -> HubClient:
        address = self._address()
        from llm_router_mw.hub.client import HubClient

        return HubClient(address, self._token)

    def _address(self) -> str:
        try:
            from llm_router_mw.hub.client import endpoint
        except ImportError as error:
            raise ConfigError(
                "models of the hub need the package httpx to be downloaded: "
                "pip install 'llm-router-mw[hub]'"
            ) from error
        return endpoint(self._environ)

    async def _plan(self, client: HubClient, reference: HubReference) -> Plan:
        known = self._plans.get(reference)
        if known is not None:
            return known
        commit = await client.commit(reference.repo)
        files = {file.path: file for file in await client.files(reference.repo, commit)}
        parts = tuple(files[path] for path in chosen(files, reference))
        plan = self._plans[reference] = Plan(reference.repo, commit, parts)
        return plan


def _write_holes(path: Path, prefix: HeaderPrefix, part: HubFile) -> None:
    """Write what was read of *part*, and nothing more, as a file of its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("wb") as file:
        file.write(prefix.data)
        file.truncate(part.size_bytes)
    os.replace(draft, path)
