"""OpenAI's dialect: embeddings."""

from __future__ import annotations

import struct
from base64 import b64encode
from typing import Any, Literal

import msgspec

from llm_router_mw.api.body import MAX_INT, check_range, decode, understand
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.demand import ModelRequest, demand_of, model_name
from llm_router_mw.api.generation import answering, deltas
from llm_router_mw.api.prompts import inputs
from llm_router_mw.api.settings import APISettings
from llm_router_mw.api.waiting import Waiting
from llm_router_mw.protocols import DeltaStream, RouterContract
from llm_router_mw.types import EmbeddingDelta, EmbedTask, FinishDelta

_FLOAT32_BYTES = 4


class EmbeddingRequest(ModelRequest, frozen=True, kw_only=True):
    """Body of ``POST /v1/embeddings``."""

    input: str | list[str | int | list[int]] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_decoder = msgspec.json.Decoder(EmbeddingRequest)


async def embeddings(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``POST /v1/embeddings``."""
    data = await connection.body(settings.max_body_bytes)
    request, model, task = await understand(data, _read)
    waiting = Waiting(connection, demand_of(request, connection, settings))

    async def work() -> None:
        async with answering(router, waiting, task) as stream:
            vectors, finish = await collect_vectors(stream)
        show = _base64 if request.encoding_format == "base64" else floats
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


def _read(data: bytes) -> tuple[EmbeddingRequest, str, EmbedTask]:
    request = decode(data, _decoder)
    model = model_name(request.model)
    # How many there may be at most, the model's worker knows.
    check_range("dimensions", request.dimensions, 1, MAX_INT)
    task = EmbedTask(inputs=inputs(request.input), dimensions=request.dimensions)
    return request, model, task


async def collect_vectors(stream: DeltaStream) -> tuple[dict[int, bytes], FinishDelta]:
    """Return the vectors of *stream* by the index of their input, and its finish."""
    vectors: dict[int, bytes] = {}
    async for delta in deltas(stream):
        if isinstance(delta, EmbeddingDelta):
            vectors[delta.index] = delta.vector
        elif isinstance(delta, FinishDelta):
            finish = delta
    return vectors, finish


def floats(vector: bytes) -> tuple[float, ...]:
    """Return the values of *vector*."""
    return struct.unpack(f"<{len(vector) // _FLOAT32_BYTES}f", vector)


def _base64(vector: bytes) -> Any:
    return b64encode(vector).decode("ascii")
