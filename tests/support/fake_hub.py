"""A hub of our own, with the answers of the real one: lists of files, redirects, parts of files."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_BLOCK = 64 * 1024


@dataclass
class Asked:
    """A request that came in, and what it was sent."""

    what: str
    """``refs``, ``tree``, ``resolve`` or ``cdn``."""
    path: str
    headers: dict[str, str]
    sent_bytes: int = 0


@dataclass
class Stored:
    """A file of a repository: its bytes, or a (sparse) file on disk whose hash is made up."""

    source: bytes | Path
    is_large: bool = True
    claims: dict[str, Any] = field(default_factory=dict)
    """What the list of files says instead of the truth."""

    @property
    def size(self) -> int:
        source = self.source
        return len(source) if isinstance(source, bytes) else source.stat().st_size

    @property
    def oid(self) -> str:
        if isinstance(self.source, Path):
            return hashlib.sha256(self.source.name.encode()).hexdigest()
        if self.is_large:
            return hashlib.sha256(self.source).hexdigest()
        return hashlib.sha1(b"blob %d\0" % self.size + self.source).hexdigest()

    def part(self, start: int, size: int) -> bytes:
        if isinstance(self.source, bytes):
            return self.source[start : start + size]
        with self.source.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def entry(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": self.size, "oid": self.oid}
        if self.is_large:
            entry["oid"] = "0" * 40
            entry["lfs"] = {"oid": self.oid, "size": self.size, "pointerSize": 135}
        return entry | self.claims


class FakeHub:
    """Repositories, and ways to make trouble. Its files come from a second address, the CDN."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Stored]] = {}
        self.branches: list[dict[str, Any]] = [{"name": "main", "targetCommit": COMMIT}]
        self.token: str | None = None
        """Without it nothing is shown."""
        self.page_size = 1000
        self.answers: dict[str, bytes] = {}
        """What is answered instead, by kind of request."""
        self.statuses: list[int] = []
        """What the CDN answers first."""
        self.knows_ranges = True
        self.shift = 0
        """By how much the CDN sends another part of a file than it was asked for."""
        self.cuts: list[int] = []
        """After how many bytes the CDN hangs up, the next times."""
        self.damages_from: int | None = None
        """From which byte on the CDN sends others than it should."""
        self.hold_at: int | None = None
        """Where in a file the CDN stops until it is let go on."""
        self.go_on = threading.Event()
        self.holding = threading.Event()
        self.asked: list[Asked] = []
        self.address = ""
        self.cdn = ""

    def add(self, repo: str, path: str, source: bytes | Path, **fields: Any) -> Stored:
        """Put a file into a repository."""
        stored = self.repos.setdefault(repo, {})[path] = Stored(source, **fields)
        return stored

    def count(self, what: str) -> int:
        """Return how many requests of a kind came in."""
        return sum(each.what == what for each in list(self.asked))

    @property
    def sent_bytes(self) -> int:
        """How many bytes of files have gone out."""
        return sum(each.sent_bytes for each in list(self.asked) if each.what == "cdn")

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        with _server(self, _HubHandler) as self.address, _server(self, _CDNHandler) as self.cdn:
            try:
                yield self
            finally:
                self.go_on.set()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up: they are meant to."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def _server(hub: FakeHub, handler: type[_Handler]) -> Iterator[str]:
    bound = type("Bound", (handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), bound)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def note(self, what: str) -> Asked:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(what, self.path, headers)
        self.hub.asked.append(asked)
        return asked

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _HubHandler(_Handler):
    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        what = next((name for name, each in _ROUTES.items() if re.fullmatch(each, path)), None)
        match = None if what is None else re.fullmatch(_ROUTES[what], path)
        if what is None or match is None:
            self.answer(404)
            return
        self.note(what)
        hub = self.hub
        files = hub.repos.get(match["repo"])
        is_allowed = hub.token is None or self.headers.get("Authorization") == f"Bearer {hub.token}"
        if files is None or not is_allowed:
            self.answer(401 if files is not None else 404, b'{"error": "not for you"}')
        elif what in hub.answers:
            self.answer(200, hub.answers[what])
        elif what == "refs":
            self.answer(200, json.dumps({"branches": hub.branches, "tags": []}).encode())
        elif what == "tree":
            self._tree(files)
        else:
            name = match["file"]
            if match["commit"] != COMMIT or name not in files:
                self.answer(404)
                return
            where = f"{hub.cdn}/{quote(match['repo'])}/{quote(name)}?Signature=secret"
            self.answer(302, Location=where, ETag=f'"{files[name].oid}"')

    def _tree(self, files: dict[str, Stored]) -> None:
        begin = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end = begin + self.hub.page_size
        entries = [file.entry(path) for path, file in files.items()]
        entries.insert(0, {"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0})
        headers = {}
        if end < len(entries):
            base = self.path.partition("&cursor")[0]
            headers["Link"] = f'<{self.hub.address}{base}&cursor={end}>; rel="next"'
        self.answer(200, json.dumps(entries[begin:end]).encode(), **headers)


class _CDNHandler(_Handler):
    def do_GET(self) -> None:
        hub = self.hub
        asked = self.note("cdn")
        if hub.statuses:
            self.answer(hub.statuses.pop(0))
            return
        owner, name, path = unquote(urlsplit(self.path).path).lstrip("/").split("/", 2)
        stored = hub.repos[f"{owner}/{name}"][path]
        begin, end = 0, stored.size
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is not None and hub.knows_ranges:
            begin = int(match[1]) + hub.shift
            end = min(int(match[2]) + 1, end) if match[2] else end
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{stored.size}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        cut = hub.cuts.pop(0) if hub.cuts else None
        try:
            self._send(stored, begin, end, cut, asked)
        except OSError:
            self.close_connection = True  # the client has hung up

    def _send(self, stored: Stored, begin: int, end: int, cut: int | None, asked: Asked) -> None:
        hub, at = self.hub, begin
        while at < end:
            size = min(_BLOCK, end - at)
            if cut is not None:
                size = min(size, begin + cut - at)
            if hub.hold_at is not None and at < hub.hold_at:
                size = min(size, hub.hold_at - at)
            if size <= 0:
                self.close_connection = True
                return
            data = stored.part(at, size)
            is_damaged = hub.damages_from is not None and at >= hub.damages_from
            self.wfile.write(bytes(len(data)) if is_damaged else data)
            at += size
            asked.sent_bytes += size
            if at == hub.hold_at:
                self.wfile.flush()
                hub.holding.set()
                hub.go_on.wait(30)


_ROUTES = {
    "refs": r"/api/models/(?P<repo>[^/]+/[^/]+)/refs",
    "tree": r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/[0-9a-f]{40}",
    "resolve": r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<commit>[^/]+)/(?P<file>.+)",
}
