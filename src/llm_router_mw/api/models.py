"""Lists of models in llama-server's shape, which is OpenAI's with more in it."""

from __future__ import annotations

import time
from typing import Any

from llm_router_mw.api.connection import Connection
from llm_router_mw.api.settings import APISettings
from llm_router_mw.protocols import RouterContract
from llm_router_mw.types import InstanceState, ModelInfo, ModelView


async def list_models(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``GET /v1/models``: what anybody with an API key may know."""
    await connection.json(models_body(router.models(), detailed=False))


async def list_models_detailed(
    connection: Connection, router: RouterContract, settings: APISettings
) -> None:
    """``GET /models``: also paths, and why a load failed."""
    await connection.json(models_body(router.models(), detailed=True))


def models_body(views: tuple[ModelView, ...], *, detailed: bool) -> dict[str, Any]:
    """Return the list of models."""
    created = int(time.time())
    return {
        "object": "list",
        "data": [_entry(view, created, detailed) for view in views],
    }


def status_body(view: ModelView, *, detailed: bool) -> dict[str, Any]:
    """Return llama-server's ``status``; messages and paths only when *detailed*."""
    status: dict[str, Any] = {"value": view.status}
    if view.progress is not None:
        status["progress"] = progress_body(view.progress, view.state)
    if view.state == InstanceState.FAILED or view.error is not None:
        status["failed"] = True
    if detailed and view.error is not None:
        status["error"] = view.error
    return status


def instance_body(view: ModelView) -> dict[str, Any]:
    """Return what llama-server has no fields for: how the model's instance is doing."""
    body: dict[str, Any] = {
        "state": view.state,
        "leases": view.leases,
        "waiting": view.waiting,
        "memory": dict(view.memory),
        "degraded": view.degraded,
        "pinned": view.pinned,
    }
    if view.sleep_level is not None:
        body["sleep_level"] = view.sleep_level
    if view.position is not None:
        body["queue_position"] = view.position
        body["expected_wait_seconds"] = view.expected_wait_seconds
    return body


def progress_body(value: float, state: InstanceState | None = None) -> dict[str, Any]:
    """Return llama-server's ``progress`` of a load or a download, a fraction from 0 to 1."""
    stage = "download" if state is InstanceState.DOWNLOADING else "text_model"
    return {"stages": [stage], "current": stage, "value": value}


def _entry(view: ModelView, created: int, detailed: bool) -> dict[str, Any]:
    model = view.model
    entry: dict[str, Any] = {
        "id": model.id,
        "aliases": model.aliases,
        "tags": model.tags,
        "object": "model",
        "owned_by": "llamacpp",
        "created": created,
        "status": status_body(view, detailed=detailed),
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "source": model.source,
        "can_remove": False,
    }
    if detailed:
        entry["path"] = model.path
        entry["instance"] = instance_body(view)
    if view.info is not None:
        entry["meta"] = _meta(view.info)
    return entry


def _meta(info: ModelInfo) -> dict[str, Any]:
    return {
        "n_vocab": info.n_vocab,
        "n_ctx": info.n_ctx,
        "n_ctx_train": info.n_ctx_train,
        "n_embd": info.n_embd,
        "n_params": info.n_params,
        "size": info.size_bytes,
    }
