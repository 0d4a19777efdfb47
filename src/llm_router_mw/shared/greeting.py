"""The first message of a connection, from somebody who is not known yet."""

from __future__ import annotations

import anyio
from anyio.abc import ByteReceiveStream

from llm_router_mw.errors import WireError
from llm_router_mw.shared.messages import GiveUp, Greet, Inspect, ToHost
from llm_router_mw.wire import MAX_FRAME_BYTES, Decoder

_FIRST_FRAME_BYTES = 16 * 1024
_SECONDS = 10.0

Greeting = Greet | GiveUp | Inspect


async def first_message(stream: ByteReceiveStream, decoder: Decoder[ToHost]) -> Greeting:
    """Return what somebody has come for; *decoder* holds what came after it.

    Raises:
        WireError: it is something else, or too long.
        TimeoutError: nothing came for too long.
        anyio.EndOfStream: they have left; so says ``anyio.BrokenResourceError``.
    """
    decoder.max_frame_bytes = _FIRST_FRAME_BYTES
    with anyio.fail_after(_SECONDS):
        message = await _next(stream, decoder)
    if not isinstance(message, Greeting):
        raise WireError(f"{type(message).__name__} came before a greeting")
    decoder.max_frame_bytes = MAX_FRAME_BYTES
    return message


async def _next(stream: ByteReceiveStream, decoder: Decoder[ToHost]) -> ToHost:
    while True:
        for message in decoder.feed(await stream.receive()):
            return message
