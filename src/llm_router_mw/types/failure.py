"""An error as data, so that it survives the pipe between worker and router."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Failure(Struct, frozen=True, kw_only=True):
    """Name of an error class of :mod:`llm_router_mw.errors`, its message and its fields."""

    kind: str
    message: str
    fields: dict[str, Any] = {}
