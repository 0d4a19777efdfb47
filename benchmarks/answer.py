"""What the bytes of an answer say: events and their times, tokens, timings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.load import Exchange

_OK = 200


class RefusedError(Exception):
    """Raised when a server answers with an error."""


@dataclass
class Answer:
    """One answer, read; times are seconds on the client's clock."""

    sent_at: float
    ended_at: float
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    """Time and content of each event; a whole answer counts as one."""

    @property
    def seconds(self) -> float:
        """From sending the request to the last byte."""
        return self.ended_at - self.sent_at

    @property
    def text(self) -> str:
        """The text of a chat's answer."""
        return "".join(_text(event) for _, event in self.events)

    @property
    def text_times(self) -> list[float]:
        """When each piece of text came."""
        return [time for time, event in self.events if _text(event)]

    @property
    def first_text_seconds(self) -> float:
        """From sending the request to the first piece of text."""
        return self.text_times[0] - self.sent_at

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece of text and the next."""
        return [later - earlier for earlier, later in pairwise(self.text_times)]

    @property
    def engine_prompt_seconds(self) -> float:
        """Seconds to the first token, as the engine itself measured them."""
        return float(self._last("timings").get("prompt_ms", 0.0)) / 1000

    @property
    def prompt_tokens(self) -> int:
        return int(self._last("usage").get("prompt_tokens", 0))

    @property
    def completion_tokens(self) -> int:
        return int(self._last("usage").get("completion_tokens", 0))

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that the server did not have to compute."""
        details = self._last("usage").get("prompt_tokens_details") or {}
        return int(details.get("cached_tokens", 0))

    def _last(self, name: str) -> dict[str, Any]:
        for _, event in reversed(self.events):
            if event.get(name):
                value: dict[str, Any] = event[name]
                return value
        return {}


def read_answers(exchanges: list[Exchange]) -> list[Answer]:
    """Return the answers of *exchanges*.

    Raises:
        RefusedError: one is an error.
    """
    return [read_answer(each) for each in exchanges]


def read_answer(exchange: Exchange) -> Answer:
    """Return the answer that came in *exchange*.

    Raises:
        RefusedError: it is an error, or breaks off although nobody ended it.
    """
    answer = Answer(exchange.sent_at, exchange.sent_at)
    head = b""
    body = b""
    stream = _Body()
    for time, data in exchange.pieces:
        answer.ended_at = time
        if not stream.begun:
            head += data
            if b"\r\n\r\n" not in head:
                continue
            data = stream.begin(head)
        body += stream.feed(data)
        if stream.is_events:
            *events, body = body.split(b"\n\n")
            answer.events += ((time, event) for event in _events(events))
    _check(stream, exchange, body)
    if not stream.is_events and body:
        answer.events.append((answer.ended_at, json.loads(body)))
    return answer


def _check(stream: _Body, exchange: Exchange, body: bytes) -> None:
    if stream.begun and stream.status != _OK:
        raise RefusedError(f"{stream.status}: {_reason(body)}")
    if not exchange.cut_off and not stream.complete:
        raise RefusedError(f"the answer to {exchange.request.path} broke off")


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _events(blocks: list[bytes]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        # Comments keep a connection alive, and [DONE] is the end.
        if block.startswith(b"data: {"):
            event: dict[str, Any] = json.loads(block.removeprefix(b"data: "))
            if "error" in event:
                raise RefusedError(str(event["error"].get("message")))
            yield event


def _text(event: dict[str, Any]) -> str:
    for choice in event.get("choices", ()):
        part = choice.get("delta") or choice.get("message") or {}
        return part.get("content") or ""
    return ""


class _Body:
    """Takes the body of an HTTP answer out of its transfer encoding."""

    def __init__(self) -> None:
        self.begun = False
        self.status = 0
        self.is_events = False
        self._chunked = False
        self._left: int | None = None
        """Bytes that are missing of the body, or of the chunk."""
        self._last_chunk_seen = False
        self._rest = b""

    @property
    def complete(self) -> bool:
        return self.begun and (self._last_chunk_seen if self._chunked else not self._left)

    def begin(self, data: bytes) -> bytes:
        """Read the head; return what follows it."""
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        parted = (line.partition(":") for line in lines)
        fields = {name.lower(): value.strip() for name, _, value in parted}
        self.begun = True
        self.status = int(first.split()[1])
        self.is_events = self.status == _OK and "event-stream" in fields.get("content-type", "")
        self._chunked = fields.get("transfer-encoding", "").lower() == "chunked"
        if "content-length" in fields:
            self._left = int(fields["content-length"])
        return rest

    def feed(self, data: bytes) -> bytes:
        """Return the part of the body that *data* holds."""
        if self._chunked:
            return self._dechunk(data)
        if self._left is not None:
            self._left -= len(data)
        return data

    def _dechunk(self, data: bytes) -> bytes:
        rest = self._rest + data
        body = []
        while b"\r\n" in rest:
            size, _, after = rest.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            if length == 0:
                self._last_chunk_seen = True
                break
            if len(after) < length + 2:
                break
            body.append(after[:length])
            rest = after[length + 2 :]
        self._rest = rest
        return b"".join(body)
