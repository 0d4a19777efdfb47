"""Talks to the hub over HTTP: what there is, and parts of files.

What it says is not trusted: answers are bounded, and names that could lead out of the cache are
dropped. Messages name repositories and files, never addresses: those hold signatures.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import cache
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

import anyio.to_thread
import httpx
import msgspec

from llm_router_mw.errors import ConfigError, DownloadError
from llm_router_mw.gguf import HeaderPrefix
from llm_router_mw.hub.files import HubFile, Plan
from llm_router_mw.hub_reference import is_inside

_ENDPOINT = "https://huggingface.co"
_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 30.0
_MAX_REDIRECTS = 5
_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_MAX_PAGES = 50
_MAX_FILE_BYTES = 2**50
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


def endpoint(environ: Mapping[str, str]) -> str:
    """Return the address of the hub, by the variables that llama.cpp goes by.

    Raises:
        ConfigError: it is none.
    """
    given = environ.get("MODEL_ENDPOINT") or environ.get("HF_ENDPOINT") or _ENDPOINT
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "HF_ENDPOINT is not an address as https://huggingface.co; correct or unset it"
        )
    return given.rstrip("/")


class _Address(httpx.URL):
    """An address that is shown without its query.

    The HTTP library logs where requests go, and the hub's storage is reached by signed addresses:
    who reads one may use it.
    """

    def __str__(self) -> str:
        return str(httpx.URL(super().__str__()).copy_with(query=None))


async def _conceal(request: httpx.Request) -> None:
    request.url = _Address(request.url)


class Body:
    """What arrives of a file."""

    def __init__(self, start: int, response: httpx.Response) -> None:
        self.start = start
        """Where in the file it begins: 0 where the server does not send parts of files."""
        self._response = response

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Return the bytes as they come."""
        with _told_apart():
            async for chunk in self._response.aiter_raw():
                yield chunk


class HubClient:
    """Asks one hub, as long as it is entered.

    Raises:
        DownloadError: the hub cannot be reached, refuses, or talks nonsense; its field ``passing``
            says whether it may be worth another try.
    """

    def __init__(self, address: str, token: str | None) -> None:
        """*token* goes to the hub alone: not to where it redirects."""
        self._address = address
        self._has_token = bool(token)
        headers = {"User-Agent": "llm-router-mw", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.AsyncClient(
            headers=headers,
            verify=_certificates(),
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
            timeout=httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
            event_hooks={"request": [_conceal]},
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def commit(self, repo: str) -> str:
        """Return the commit at which *repo* is: that of ``main``, else of its first branch."""
        answer, _ = await self._json(f"{self._address}/api/models/{repo}/refs", repo)
        branches = answer.get("branches") if isinstance(answer, dict) else None
        commits = {
            str(each.get("name")): each.get("targetCommit")
            for each in branches or ()
            if isinstance(each, dict) and _is(_COMMIT, each.get("targetCommit"))
        }
        commit = commits.get("main") or next(iter(commits.values()), None)
        if commit is None:
            raise DownloadError(f"the hub does not say what is in {repo}; check its name")
        return str(commit)

    async def files(self, repo: str, commit: str) -> tuple[HubFile, ...]:
        """Return the files of *repo* at *commit*."""
        url: str | None = f"{self._address}/api/models/{repo}/tree/{commit}?recursive=true"
        found: list[HubFile] = []
        for _ in range(_MAX_PAGES):
            if url is None:
                break
            answer, url = await self._json(url, repo)
            items = answer if isinstance(answer, list) else ()
            found += [file for file in map(_file, items) if file is not None]
        return tuple(found)

    async def prefix(self, plan: Plan, file: HubFile) -> HeaderPrefix:
        """Return as much of *file* as its header takes, which is in it and well-formed.

        Raises:
            InvalidGGUFError: it is not.
        """
        prefix = HeaderPrefix(file.path.rpartition("/")[2], file.size_bytes)
        while True:
            wanted = prefix.wanted_bytes
            if wanted > len(prefix):
                await self._extend(prefix, plan, file, wanted)
            if await anyio.to_thread.run_sync(prefix.header) is not None:
                return prefix

    async def _extend(self, prefix: HeaderPrefix, plan: Plan, file: HubFile, wanted: int) -> None:
        async with (
            self.open(plan, file, len(prefix), wanted) as body,
            aclosing(body.chunks()) as chunks,
        ):
            at = body.start
            async for chunk in chunks:
                prefix.feed(chunk[max(0, len(prefix) - at) :][: wanted - len(prefix)])
                at += len(chunk)
                if len(prefix) >= wanted:
                    return  # a server that sends all of the file is not heard out
        raise DownloadError(f"the hub sent too little of {file.path}", passing=True)

    @asynccontextmanager
    async def open(
        self, plan: Plan, file: HubFile, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[Body]:
        """Ask for *file* from the byte *start* to before *stop*; more may come."""
        url = f"{self._address}/{plan.repo}/resolve/{plan.commit}/{quote(file.path)}"
        until = "" if stop is None else stop - 1
        with _told_apart():
            async with self._http.stream(
                "GET", url, headers={"Range": f"bytes={start}-{until}"}
            ) as response:
                self._check(response, f"{file.path} of {plan.repo}")
                begin = 0
                if response.status_code == httpx.codes.PARTIAL_CONTENT:
                    match = _RANGE.match(response.headers.get("Content-Range", ""))
                    if match is None or int(match[1]) != start:
                        raise DownloadError(
                            f"the hub sent another part of {file.path} than was asked for",
                            passing=True,
                        )
                    begin = start
                yield Body(begin, response)

    async def _json(self, url: str, repo: str) -> tuple[Any, str | None]:
        """Return the answer, and where it goes on."""
        data = bytearray()
        with _told_apart():
            async with self._http.stream("GET", url) as response:
                self._check(response, repo)
                async for chunk in response.aiter_raw():
                    data += chunk
                    if len(data) > _MAX_ANSWER_BYTES:
                        raise DownloadError(f"the hub's answer about {repo} does not end")
        try:
            answer = msgspec.json.decode(bytes(data))
        except msgspec.DecodeError as error:
            raise DownloadError(
                f"the hub's answer about {repo} is no JSON; is HF_ENDPOINT the address of a hub?"
            ) from error
        following = response.links.get("next", {}).get("url")
        if following is None:
            return answer, None
        target = urljoin(url, following)
        # Nowhere else: the token goes along.
        return answer, target if target.startswith(f"{self._address}/") else None

    def _check(self, response: httpx.Response, what: str) -> None:
        """Raise if the hub does not give *what*."""
        status = response.status_code
        if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            return
        if status in (401, 403, 404):
            token = (
                "the token (-hft, HF_TOKEN) must have the right to read it"
                if self._has_token
                else "if it is private or gated, give a token with -hft or HF_TOKEN"
            )
            raise DownloadError(f"the hub has no {what}, or does not show it ({status}); {token}")
        passing = status >= 500 or status in (408, 416, 429)
        raise DownloadError(f"the hub answered {status} when asked for {what}", passing=passing)


@cache
def _certificates() -> SSLContext:
    """Return whom to trust; it takes a while to read."""
    return httpx.create_ssl_context()


@contextmanager
def _told_apart() -> Iterator[None]:
    """Turn errors of the HTTP library into ours."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        reason = str(error) or type(error).__name__
        raise DownloadError(
            f"the hub cannot be reached: {reason}; check the network and HF_ENDPOINT",
            passing=isinstance(error, httpx.TransportError),
        ) from error


def _file(item: Any) -> HubFile | None:
    """Return what an entry of a list of files says; None if it is no file, or unusable."""
    if not isinstance(item, dict) or item.get("type") != "file":
        return None
    large = item.get("lfs")
    about = large if isinstance(large, dict) else item
    path, size, oid = item.get("path"), about.get("size"), about.get("oid")
    if not isinstance(path, str) or not is_inside(path) or not _is(_OID, oid):
        return None
    if not isinstance(size, int) or not 0 <= size <= _MAX_FILE_BYTES:
        return None
    return HubFile(path, size, str(oid))


def _is(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
