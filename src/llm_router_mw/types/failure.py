"""An error as data, so that it survives the pipe between worker and router."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class ErrorLook(Struct, frozen=True):
    """How clients see an error, where its class does not say it."""

    status: int
    """HTTP status."""
    error_type: str
    code: str | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """Name of an error class of :mod:`llm_router_mw.errors`, its message and its fields."""

    kind: str
    message: str
    fields: dict[str, Any] = {}
    look: ErrorLook | None = None
    """Of an error whose class is not of this package: whoever reads this may not know it."""
