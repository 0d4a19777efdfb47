"""Frames for what app code has made."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from llm_router_mw.errors import InvalidRequestError, WireError
from llm_router_mw.wire import Decoder, encode


def checked_frame(message: msgspec.Struct) -> bytes:
    """Return *message* as a frame that the other end will understand.

    What app code made may hold anything; a peer that can't read a frame ends the connection, and
    all other requests with it.

    Raises:
        InvalidRequestError: the other end could not read it.
    """
    try:
        frame = encode(message)
        next(Decoder(_decoder(type(message))).feed(frame))
    except (WireError, msgspec.MsgspecError, TypeError, ValueError, ArithmeticError) as error:
        raise InvalidRequestError(
            f"the request cannot be sent to the process that is to serve it: {error}"
        ) from error
    return frame


@cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)
