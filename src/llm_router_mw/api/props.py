"""llama-server's ``GET /props`` and ``GET /slots``, from snapshots: they wake and load nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from llm_router_mw.api.auth import may_manage
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.demand import model_name
from llm_router_mw.api.settings import APISettings
from llm_router_mw.errors import AvailabilityError, ModelNotFoundError
from llm_router_mw.protocols import RouterContract
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    EmbedTask,
    InstanceState,
    ModelView,
    RerankTask,
    Sampling,
    Task,
)

REDACTED = ""
"""Stands for what only the admin key shows."""


async def props(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``GET /props``: of the router, or with ``?model=`` of that model."""
    name = connection.query("model")
    if not name:
        await connection.json(_router_props(router, may_manage(connection.scope, settings)))
        return
    view = _view(router, name)
    await connection.json(_model_props(view, may_manage(connection.scope, settings)))


async def slots(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``GET /slots?model=``: what the model works on; prompts are for the admin key only."""
    view = _view(router, model_name(connection.query("model")))
    running = await router.tasks(view.id)
    free = max(0, _slot_count(view) - len(running))
    if connection.query("fail_on_no_slot") and not free:
        raise AvailabilityError("no slot available; ask again later")
    detailed = may_manage(connection.scope, settings)
    found = [_slot(view, number) for number in range(len(running) + free)]
    for slot, task in zip(found, running, strict=False):
        slot["is_processing"] = True
        if detailed:
            slot["prompt"] = _prompt(task)
    await connection.json(found)


def _view(router: RouterContract, name: str) -> ModelView:
    for view in router.models():
        if name == view.id or name in view.model.aliases:
            return view
    raise ModelNotFoundError(
        f"model {name[:100]!r} not found; GET /v1/models lists all models", param="model"
    )


def _router_props(router: RouterContract, detailed: bool) -> dict[str, Any]:
    about = router.overview()
    details = {"plugin_failures": dict(about.plugin_failures)} if detailed else {}
    return {
        "role": "router",
        "max_instances": about.models_max,
        "models_autoload": about.models_autoload,
        # As llama-server's router has it, for programs that expect a model here.
        "model_alias": "llama-server",
        "model_path": "none",
        "default_generation_settings": {"params": {}, "n_ctx": 0},
        "is_sleeping": False,
        **details,
    }


def _model_props(view: ModelView, detailed: bool) -> dict[str, Any]:
    model = view.model
    sampling = msgspec.to_builtins(Sampling())
    return {
        "role": "model",
        "default_generation_settings": {"params": sampling, "n_ctx": _n_ctx(view)},
        "total_slots": _slot_count(view),
        "model_alias": model.id,
        "model_path": model.path if detailed else REDACTED,
        "modalities": {"vision": False, "video": False, "audio": False},
        "endpoint_slots": True,
        "endpoint_props": False,
        "endpoint_metrics": False,
        "chat_template": model.options.chat_template if detailed else REDACTED,
        "is_sleeping": view.state is InstanceState.SLEEPING,
        "status": {"value": view.status},
    }


def _slot_count(view: ModelView) -> int:
    return view.model.options.n_parallel if view.info is None else view.info.n_parallel


def _n_ctx(view: ModelView) -> int:
    """Return the tokens that one request may use; 0 if that is decided at the load."""
    total = view.model.options.n_ctx if view.info is None else view.info.n_ctx
    return total if view.model.options.kv_unified else total // _slot_count(view)


def _slot(view: ModelView, number: int) -> dict[str, Any]:
    return {"id": number, "n_ctx": _n_ctx(view), "speculative": False, "is_processing": False}


def _prompt(task: Task) -> Any:
    """Return what was asked, as it was asked."""
    match task:
        case ChatTask():
            return task.messages
        case CompletionTask():
            return task.prompt
        case EmbedTask():
            return task.inputs
        case RerankTask():
            return {"query": task.query, "documents": task.documents}
