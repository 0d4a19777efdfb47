"""Reranking, as Jina and Text Embeddings Inference (TEI) do it, and as llama-server takes both."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from llm_router_mw.api.body import MAX_INT, check_range, decode, understand
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.demand import ModelRequest, demand_of
from llm_router_mw.api.embeddings import collect_vectors, floats
from llm_router_mw.api.generation import answering
from llm_router_mw.api.prompts import MAX_INPUTS
from llm_router_mw.api.settings import APISettings
from llm_router_mw.api.waiting import Waiting
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.protocols import RouterContract
from llm_router_mw.types import RerankTask, Usage


class Document(Struct, frozen=True):
    """A document in Jina's long form."""

    text: str


class RerankRequest(ModelRequest, frozen=True, kw_only=True):
    """Body of ``POST /v1/rerank``; one that has ``texts`` is answered in TEI's shape."""

    query: str | None = None
    documents: list[str | Document] | None = None
    texts: list[str] | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    return_text: bool | None = None

    def task(self) -> RerankTask:
        """Return the task.

        Raises:
            InvalidRequestError: a field is missing or out of range.
        """
        if not self.query:
            raise InvalidRequestError("query is missing or empty", param="query")
        check_range("top_n", self.top_n, 1, MAX_INT)
        return RerankTask(query=self.query, documents=self._documents())

    def _documents(self) -> tuple[str, ...]:
        if self.documents is not None and self.texts is not None:
            raise InvalidRequestError("send documents or texts, not both", param="texts")
        name = "documents" if self.texts is None else "texts"
        given = (self.documents if self.texts is None else self.texts) or []
        if not 1 <= len(given) <= MAX_INPUTS:
            raise InvalidRequestError(
                f"{name} holds {len(given)} texts; send from 1 to {MAX_INPUTS}", param=name
            )
        return tuple(item.text if isinstance(item, Document) else item for item in given)


_decoder = msgspec.json.Decoder(RerankRequest)


async def rerank(connection: Connection, router: RouterContract, settings: APISettings) -> None:
    """``POST /v1/rerank``, ``POST /v1/reranking``."""
    data = await connection.body(settings.max_body_bytes)
    request, task = await understand(data, _read)
    waiting = Waiting(connection, demand_of(request, connection, settings))

    async def work() -> None:
        async with answering(router, waiting, task) as stream:
            vectors, finish = await collect_vectors(stream)
        scores = {index: floats(vector)[0] for index, vector in vectors.items()}
        best = sorted(scores.items(), key=lambda item: -item[1])[: request.top_n]
        if request.texts is not None:
            await connection.json(_tei_shape(request, task, best))
        else:
            await connection.json(_jina_shape(request, task, best, finish.usage))

    await connection.while_connected(work)


def _read(data: bytes) -> tuple[RerankRequest, RerankTask]:
    request = decode(data, _decoder)
    return request, request.task()


def _jina_shape(
    request: RerankRequest, task: RerankTask, best: list[tuple[int, float]], usage: Usage
) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for index, score in best:
        results.append({"index": index, "relevance_score": score})
        if request.return_documents:
            results[-1]["document"] = {"text": task.documents[index]}
    tokens = usage.prompt_tokens
    return {
        "model": request.model,
        "object": "list",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results,
    }


def _tei_shape(
    request: RerankRequest, task: RerankTask, best: list[tuple[int, float]]
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for index, score in best:
        results.append({"index": index, "score": score})
        if request.return_text:
            results[-1]["text"] = task.documents[index]
    return results
