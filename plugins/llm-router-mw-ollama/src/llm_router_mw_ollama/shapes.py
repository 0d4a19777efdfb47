"""What Ollama's clients expect to read."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from llm_router_mw.types import FinishDelta, ModelView

_NANOSECONDS = 1_000_000_000
_RESIDENT = ("loaded", "loading", "sleeping")


def now() -> str:
    """Return the time as clients read it."""
    return _time(datetime.now(UTC))


def piece(model: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return a part of an answer."""
    return {"model": model, "created_at": now(), **content, "done": False}


def end(
    model: str, content: dict[str, Any], finish: FinishDelta, total: float, load: float
) -> dict[str, Any]:
    """Return the end of an answer that took *total* seconds, *load* of them for its model."""
    return {
        "model": model,
        "created_at": now(),
        **content,
        "done": True,
        "done_reason": finish.reason,
        "total_duration": nanoseconds(total),
        "load_duration": nanoseconds(load),
        "prompt_eval_count": finish.usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(finish.timings.prompt_seconds),
        "eval_count": finish.usage.completion_tokens,
        "eval_duration": nanoseconds(finish.timings.predicted_seconds),
    }


def nothing_done(model: str, content: dict[str, Any], reason: str) -> dict[str, Any]:
    """Return what is said when a model was only loaded, or released."""
    about = {"model": model, "created_at": now(), **content}
    return {**about, "done": True, "done_reason": reason}


def tag(view: ModelView) -> dict[str, Any]:
    """Return an entry of ``/api/tags``. Looks at the file."""
    size, changed_at = _file(view.model.path)
    modified = datetime.fromtimestamp(changed_at, UTC)
    return {**_about(view, size, changed_at), "modified_at": _time(modified)}


def running(view: ModelView, now_: datetime) -> dict[str, Any]:
    """Return an entry of ``/api/ps``. Looks at the file."""
    size, changed_at = _file(view.model.path)
    charged = sum(view.memory.values())
    gpus = sum(bytes_ for pool, bytes_ in view.memory.items() if pool != "host")
    return {
        **_about(view, size, changed_at),
        "size": charged or size,
        "size_vram": gpus,
        "context_length": view.info.n_ctx if view.info is not None else 0,
        # When it goes is for the router to decide, as others ask for room.
        "expires_at": _time(now_ + timedelta(days=365)),
    }


def is_resident(view: ModelView) -> bool:
    """Say whether *view* belongs into ``/api/ps``."""
    return view.status in _RESIDENT


def details(view: ModelView) -> dict[str, Any]:
    """Return what is known of the kind of model."""
    description = view.info.description if view.info is not None else ""
    family, _, rest = description.partition(" ")
    size, _, quantisation = rest.partition(" ")
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": size,
        "quantization_level": quantisation,
    }


def nanoseconds(seconds: float) -> int:
    """Return *seconds* as Ollama counts them."""
    return round(seconds * _NANOSECONDS)


def _about(view: ModelView, size: int, changed_at: float) -> dict[str, Any]:
    identity = f"{view.model.path}\0{size}\0{changed_at}"
    return {
        "name": view.id,
        "model": view.id,
        "size": size,
        "digest": sha256(identity.encode()).hexdigest(),
        "details": details(view),
    }


def _file(path: str) -> tuple[int, float]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0.0
    return status.st_size, status.st_mtime


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
