"""Management: health, load, unload, sleep, wake, and the events of all models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from msgspec import Struct

from llm_router_mw.api.body import decode
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.demand import model_name
from llm_router_mw.api.models import instance_body, models_body, progress_body
from llm_router_mw.api.settings import APISettings
from llm_router_mw.api.sse import EventStream, event
from llm_router_mw.protocols import RouterContract
from llm_router_mw.types import InstanceState, RouterEvent, SleepLevel, client_state


class LoadRequest(Struct, frozen=True, kw_only=True):
    """Body of ``POST /models/load`` and ``POST /models/wake``."""

    model: str | None = None


class UnloadRequest(Struct, frozen=True, kw_only=True):
    """Body of ``POST /models/unload``."""

    model: str | None = None
    force: bool | None = None
    """Cut off requests that are running, rather than wait for their end."""


class SleepRequest(Struct, frozen=True, kw_only=True):
    """Body of ``POST /models/sleep``."""

    model: str | None = None
    level: SleepLevel | None = None


class PurgeRequest(Struct, frozen=True, kw_only=True):
    """Body of ``POST /models/cache/purge``."""

    model: str | None = None
    """None is all of them."""


_load_decoder = msgspec.json.Decoder(LoadRequest)
_unload_decoder = msgspec.json.Decoder(UnloadRequest)
_sleep_decoder = msgspec.json.Decoder(SleepRequest)
_purge_decoder = msgspec.json.Decoder(PurgeRequest)


async def health(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``GET /health``."""
    await connection.json({"status": "ok"})


async def load(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``POST /models/load``: answers when the load has been asked for, not when it is done."""
    request = decode(await connection.body(settings.max_body_bytes), _load_decoder)
    await router.load(model_name(request.model), wait=False)
    await connection.json({"success": True})


async def unload(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``POST /models/unload``: 202 if the model is busy and drains first."""
    request = decode(await connection.body(settings.max_body_bytes), _unload_decoder)
    gone = await router.unload(model_name(request.model), force=bool(request.force), wait=False)
    await connection.json({"success": True}, 200 if gone else 202)


async def sleep(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``POST /models/sleep``: 202 if the model is busy and drains first."""
    request = decode(await connection.body(settings.max_body_bytes), _sleep_decoder)
    level = request.level or "full"
    asleep = await router.sleep(model_name(request.model), level=level, wait=False)
    await connection.json({"success": True}, 200 if asleep else 202)


async def wake(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``POST /models/wake``: answers when the wake has been asked for, not when it is done."""
    request = decode(await connection.body(settings.max_body_bytes), _load_decoder)
    await router.wake(model_name(request.model), wait=False)
    await connection.json({"success": True})


async def list_cache(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``GET /models/cache``: saved conversations, without what was said in them."""
    await connection.json({"data": msgspec.to_builtins(await router.cached())})


async def purge_cache(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``POST /models/cache/purge``: all saved conversations are removed, or those of a model."""
    body = await connection.body(settings.max_body_bytes)
    request = decode(body or b"{}", _purge_decoder)
    purged = await router.purge_cache(request.model)
    await connection.json({"success": True} | msgspec.to_builtins(purged))


async def stream_events(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``GET /models/sse``: a snapshot, then every event until the client leaves."""

    async def work() -> None:
        async with router.events() as events:
            await EventStream(connection, settings).run(_chunks(events))

    await connection.while_connected(work)


async def _chunks(events: AsyncIterator[RouterEvent]) -> AsyncGenerator[bytes]:
    async for item in events:
        yield b"".join(event(body) for body in event_bodies(item))


def event_bodies(item: RouterEvent) -> list[dict[str, Any]]:
    """Return what llama-server would send for *item*.

    A change of status comes under both names: its documentation says ``model_status``, its code
    sends ``status_change``.
    """
    data: dict[str, Any] = dict(item.data)
    if item.state is not None:
        data["status"] = client_state(item.state)
    if item.reason:
        data["reason"] = item.reason
    if item.kind == "snapshot":
        data |= models_body(item.models, detailed=True)
    elif item.models:
        data["instance"] = instance_body(item.models[0])
    if item.kind == "progress":
        data["status"] = client_state(item.state or InstanceState.LOADING)
        data["progress"] = progress_body(data.pop("value", 0.0), item.state)
    names = {
        "status": ("model_status", "status_change"),
        "progress": ("status_change",),
    }.get(item.kind, (item.kind,))
    return [{"model": item.model, "event": name, "data": data} for name in names]
