"""OpenAI's dialect: embeddings."""

from __future__ import annotations

import struct
from base64 import b64encode
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llm_router_mw.api.body import decode
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.generation import answering, deltas
from llm_router_mw.api.parameters import model_name
from llm_router_mw.api.prompts import inputs
from llm_router_mw.api.settings import APISettings
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.protocols import DeltaStream, RouterContract
from llm_router_mw.types import EmbeddingDelta, EmbedTask, FinishDelta

_FLOAT32_BYTES = 4


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """Body of ``POST /v1/embeddings``."""

    model: str | None = None
    input: str | list[str | int | list[int]] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_decoder = msgspec.json.Decoder(EmbeddingRequest)


async def embeddings(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``POST /v1/embeddings``."""
    request = decode(await connection.body(settings.max_body_bytes), _decoder)
    model = model_name(request.model)
    if request.dimensions is not None:
        raise InvalidRequestError(
            "dimensions is not supported yet; leave the field out", param="dimensions"
        )
    task = EmbedTask(inputs=inputs(request.input))

    async def work() -> None:
        async with answering(connection, router, model, task) as stream:
            vectors, finish = await _collect(stream)
        show = _base64 if request.encoding_format == "base64" else _floats
        tokens = finish.usage.prompt_tokens
        await connection.json(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": index, "embedding": show(vectors[index])}
                    for index in sorted(vectors)
                ],
                "model": model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    await connection.while_connected(work)


async def _collect(stream: DeltaStream) -> tuple[dict[int, bytes], FinishDelta]:
    vectors: dict[int, bytes] = {}
    async for delta in deltas(stream):
        if isinstance(delta, EmbeddingDelta):
            vectors[delta.index] = delta.vector
        elif isinstance(delta, FinishDelta):
            finish = delta
    return vectors, finish


def _floats(vector: bytes) -> Any:
    return struct.unpack(f"<{len(vector) // _FLOAT32_BYTES}f", vector)


def _base64(vector: bytes) -> Any:
    return b64encode(vector).decode("ascii")
