"""The language between a web process and the shared host: frames as between router and worker.

Each request has a number that the web process chose; what comes back carries it. A connection is
one web process: when it is lost, whatever it held at the host is given back.

The first frame of a connection is ``Greet``, ``GiveUp`` or ``Inspect``; everything else is answered
only after ``Welcome``. Streams use the messages of :mod:`llm_router_mw.wire` (``Step``,
``Credit``, ``Cancel``); an error is a ``FailureDelta``, the last of its stream.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from llm_router_mw.types import (
    Failure,
    ModelInfo,
    ModelView,
    QueuePlace,
    RouterEvent,
    RouterView,
    SleepLevel,
    Task,
    Wish,
)
from llm_router_mw.wire import Cancel, Credit, Decoder, Step

PROTOCOL = 1
"""Raised whenever a message changes its meaning; both sides must agree."""


# Web process → host


class Greet(Struct, frozen=True, tag="greet"):
    """May I use your router? Answered by welcome or other."""

    protocol: int
    version: str
    """Of the package."""
    fingerprint: str
    """Of the plan: what the router must have been made of."""
    pid: int


class GiveUp(Struct, frozen=True, tag="give_up"):
    """Leave your address to a new host and serve only those who are connected.

    Answered by given_up.
    """

    version: str
    fingerprint: str
    """Of the host to come, for the log."""


class Inspect(Struct, frozen=True, tag="inspect"):
    """What are you? Answered by status, and the connection ends."""


class Ask(Struct, frozen=True, tag="ask"):
    """Grant leases of *models*; answered by queued, perhaps often, then granted or refused."""

    id: int
    models: tuple[str, ...]
    wish: Wish
    tell_place: bool = False
    """Whether the request's place in the queue is wanted (queued)."""


class Start(Struct, frozen=True, tag="start"):
    """Run *task* under lease *index* of what was granted to *ask*; answered by steps for *id*."""

    id: int
    ask: int
    index: int
    task: Task
    release: bool = False
    """End the lease as soon as the worker is done."""


class Release(Struct, frozen=True, tag="release"):
    """Give lease *index* of what was granted to *ask* back. One that is not known is none."""

    ask: int
    index: int


class Abandon(Struct, frozen=True, tag="abandon"):
    """Nobody waits for the answer to *id*: cancel it, and release what it was granted."""

    id: int


class Load(Struct, frozen=True, tag="load"):
    """As ``RouterContract.load``; also for ``wake``. Answered by answered(None) or refused."""

    id: int
    model: str
    wait: bool


class Unload(Struct, frozen=True, tag="unload"):
    """As ``RouterContract.unload``; answered by answered(bool) or refused."""

    id: int
    model: str
    force: bool
    wait: bool


class PutToSleep(Struct, frozen=True, tag="put_to_sleep"):
    """As ``RouterContract.sleep``; answered by answered(bool) or refused."""

    id: int
    model: str
    level: SleepLevel
    wait: bool


class PurgeCache(Struct, frozen=True, tag="purge_cache"):
    """As ``RouterContract.purge_cache``; answered by answered(Purged) or refused."""

    id: int
    model: str | None


class GetTasks(Struct, frozen=True, tag="get_tasks"):
    """As ``RouterContract.tasks``; answered by answered(list[Task]) or refused."""

    id: int
    model: str


class GetCached(Struct, frozen=True, tag="get_cached"):
    """As ``RouterContract.cached``; answered by answered(list[StoredSnapshot]) or refused."""

    id: int


class Ping(Struct, frozen=True, tag="ping"):
    """Are you there? Answered by pong at once."""


# Host → web process


class Welcome(Struct, frozen=True, tag="welcome"):
    """You may; and this is how things stand."""

    version: str
    pid: int
    models: tuple[ModelView, ...]
    overview: RouterView


class Other(Struct, frozen=True, tag="other"):
    """This host's router is another one. The connection ends."""

    protocol: int
    version: str
    fingerprint: str
    pid: int


class Status(Struct, frozen=True, kw_only=True, tag="status"):
    """What somebody who looks at the host wants to know."""

    version: str
    fingerprint: str
    pid: int
    web_processes: tuple[int, ...]
    """Their numbers."""
    draining: bool
    models: tuple[ModelView, ...]


class GivenUp(Struct, frozen=True, tag="given_up"):
    """The address is free. The connection ends."""


class Queued(Struct, frozen=True, tag="queued"):
    """Ask *id* waits."""

    id: int
    place: QueuePlace


class Granted(Struct, frozen=True, tag="granted"):
    """Ask *id* has its leases, in its order: id of the model and facts about its instance."""

    id: int
    leases: tuple[tuple[str, ModelInfo], ...]


class Answered(Struct, frozen=True, tag="answered"):
    """What *id* asked for, as the request says."""

    id: int
    result: msgspec.Raw


class Refused(Struct, frozen=True, tag="refused"):
    """*id* cannot be had."""

    id: int
    failure: Failure


class Views(Struct, frozen=True, tag="views"):
    """These models, and the router, are now as said here; the other models are as they were."""

    models: tuple[ModelView, ...]
    overview: RouterView


class Happened(Struct, frozen=True, tag="happened"):
    """An event of the router; the models in it are as they are now."""

    event: RouterEvent


class Pong(Struct, frozen=True, tag="pong"):
    """I am."""


Verb = Load | Unload | PutToSleep | PurgeCache | GetTasks | GetCached
"""Requests that are answered once."""
ToHost = Greet | GiveUp | Inspect | Ask | Start | Release | Abandon | Verb | Ping | Credit | Cancel
ToWeb = (
    Welcome
    | Other
    | Status
    | GivenUp
    | Queued
    | Granted
    | Answered
    | Refused
    | Views
    | Happened
    | Pong
    | Step
)


def host_decoder() -> Decoder[ToHost]:
    """Return the decoder of the host's end."""
    return Decoder(msgspec.msgpack.Decoder(ToHost))


def web_decoder() -> Decoder[ToWeb]:
    """Return the decoder of the web process' end."""
    return Decoder(msgspec.msgpack.Decoder(ToWeb))
