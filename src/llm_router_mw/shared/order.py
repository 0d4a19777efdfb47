"""What is said between the one who starts a host and the host, over its stdin and stdout."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from llm_router_mw.shared.address import Address
from llm_router_mw.shared.plan import Plan
from llm_router_mw.types import Failure
from llm_router_mw.wire import Decoder


class Order(Struct, frozen=True, tag="order"):
    """Starter → host: be the host of *plan* at that address. Answered by ready or failed."""

    plan: Plan
    address: Address
    lock: int
    """Descriptor of the address' lock, to be closed when others may look."""
    start_seconds: float
    """End if it takes longer until then: whatever hangs, others wait for the lock."""


class Ready(Struct, frozen=True, tag="ready"):
    """Host → starter: web processes may come."""

    pid: int


class Failed(Struct, frozen=True, tag="failed"):
    """Host → starter: the router cannot be made, or did not start. The host ends."""

    failure: Failure


def order_decoder() -> Decoder[Order]:
    """Return the decoder of the host's end."""
    return Decoder(msgspec.msgpack.Decoder(Order))


def answer_decoder() -> Decoder[Ready | Failed]:
    """Return the decoder of the starter's end."""
    return Decoder(msgspec.msgpack.Decoder(Ready | Failed))
