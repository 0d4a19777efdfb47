"""How somebody wants to be served."""

from __future__ import annotations

from typing import Final, TypedDict

from msgspec import Struct


class Wish(Struct, frozen=True, kw_only=True):
    """What is said with the names of the models that somebody wants."""

    autoload: bool | None = None
    """Whether they may be loaded for this; None is as configured."""
    priority: int = 0
    """Added to the models' own; higher goes first in the queue."""
    keep_alive_seconds: float | None = None
    """How long the models stay afterwards: 0 releases them, -1 keeps them, None is as configured.
    At most ``max_keep_alive_seconds``."""
    timeout_seconds: float | None = None
    """How long to wait at most, within ``queue_timeout_seconds``; None is as long as that."""
    owner: str = ""
    """Whose request it is: a name that is the same for all of one's requests, and no secret. What
    is usually asked for next is learned for each owner by itself."""


AS_USUAL: Final = Wish()
"""Nothing special."""


class WishOptions(TypedDict, total=False):
    """The fields of a ``Wish`` as keyword arguments."""

    autoload: bool | None
    priority: int
    keep_alive_seconds: float | None
    timeout_seconds: float | None
    owner: str
