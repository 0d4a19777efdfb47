"""What a request pays for going through the shared host, beside a router in the web process."""

from __future__ import annotations

import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.chat import chat_request, user
from benchmarks.processes import cpu_seconds
from benchmarks.serve_ours import shared_name
from benchmarks.servers import WARM_UP_WORDS, Server, free_port
from benchmarks.settings import Settings
from llm_router_mw.shared.card import cards

STREAMS: Final = 50
FIRST_TOKEN_TARGET_MS: Final = 2.0
CHUNK_TARGET_US: Final = 40.0
_CONTEXT_PER_STREAM: Final = 512


@dataclass
class Mode:
    """One place for the router, and what was measured there; times are medians."""

    name: str
    first_tokens: list[float] = field(default_factory=list)
    """Seconds to the first token of requests that are alone."""
    chunks: list[float] = field(default_factory=list)
    """Seconds for which the web process computes per chunk of many streams, by rounds."""
    host_chunks: list[float] = field(default_factory=list)
    """The same of the host, where there is one."""

    @property
    def first_token_ms(self) -> float:
        return 1000 * statistics.median(self.first_tokens)

    @property
    def chunk_us(self) -> float:
        return 1e6 * statistics.median(self.chunks)

    @property
    def host_chunk_us(self) -> float:
        return 1e6 * statistics.median(self.host_chunks)


class Site:
    """A server with the router in one place."""

    def __init__(self, mode: str, model: Path) -> None:
        """Start it, with room for all streams."""
        self.measured = Mode(mode)
        self._port = free_port()
        settings = Settings("dense", STREAMS * _CONTEXT_PER_STREAM, STREAMS)
        options = {
            "--model": model,
            "--port": self._port,
            "--ctx-size": settings.n_ctx,
            "--parallel": settings.n_parallel,
            "--threads": 1,
            "--mode": mode,
        }
        command = [sys.executable, "-m", "benchmarks.serve_ours"]
        command += [str(item) for pair in options.items() for item in pair]
        self._server = Server(mode, command, self._port, settings, model)
        self.stop = self._server.stop
        name = shared_name(self._port)
        self._hosts = [card.pid for card in cards() if card.name == name]

    def measure_first_token(self) -> None:
        """Send one request for one token."""
        request = chat_request(self._server.model, [user(WARM_UP_WORDS)], max_tokens=1, seed=1)
        [answer] = self._server.send([request])
        self.measured.first_tokens.append(answer.first_text_seconds)

    def measure_chunks(self, tokens: int) -> None:
        """Have so many *tokens* streamed to each of many clients at once."""
        pids = [self._server.pid, *self._hosts]
        before = [cpu_seconds(pid) for pid in pids]
        answers = self._server.send(
            [
                chat_request(
                    self._server.model, [user(WARM_UP_WORDS)], max_tokens=tokens, seed=seed
                )
                for seed in range(STREAMS)
            ]
        )
        spent = [cpu_seconds(pid) - began for pid, began in zip(pids, before, strict=True)]
        chunks = sum(len(answer.events) for answer in answers)
        self.measured.chunks.append(spent[0] / chunks)
        self.measured.host_chunks += [seconds / chunks for seconds in spent[1:]]


def measure_shared(model: Path, *, requests: int, rounds: int, tokens: int) -> tuple[Mode, Mode]:
    """Return what *requests* for one token, and rounds of many streams, take locally and shared.

    Both servers are up, and take turns.
    """
    with ExitStack() as stack:
        sites = []
        for mode in ("local", "shared"):
            sites.append(Site(mode, model))
            stack.callback(sites[-1].stop)
        for turn in range(requests):
            for site in _in_turn(sites, turn):
                site.measure_first_token()
        for turn in range(rounds):
            for site in _in_turn(sites, turn):
                site.measure_chunks(tokens)
    local, shared = (site.measured for site in sites)
    return local, shared


def report(local: Mode, shared: Mode) -> list[str]:
    """Return the figures in words."""
    return [
        f"first token: {local.first_token_ms:.2f} ms with a router in the web process, "
        f"{shared.first_token_ms:.2f} ms with the shared host: "
        f"{shared.first_token_ms - local.first_token_ms:+.2f} ms "
        f"(target: {FIRST_TOKEN_TARGET_MS:g} at most)",
        f"a chunk of {STREAMS} streams: the web process computes for {local.chunk_us:.1f} µs with "
        f"a router of its own, for {shared.chunk_us:.1f} µs with the shared host: "
        f"{shared.chunk_us - local.chunk_us:+.1f} µs (target: {CHUNK_TARGET_US:g} at most); "
        f"the host for {shared.host_chunk_us:.1f} µs",
    ]


def _in_turn(sites: list[Site], turn: int) -> list[Site]:
    """Return them in an order that changes: who comes second finds other caches."""
    return sites if turn % 2 else sites[::-1]
