"""What a task is in llama-server's words."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    EmbedTask,
    LoadOptions,
    RerankTask,
    Sampling,
)

# The others are llama-server's own names, and its own defaults.
_OWN_FIELDS = ("seed", "json_schema", "grammar", "logit_bias")


def completion(
    task: ChatTask | CompletionTask, prompt: str | tuple[int, ...], options: LoadOptions
) -> dict[str, Any]:
    """Return the body of ``POST /completion`` for *task*, with the *prompt* made of it."""
    body: dict[str, Any] = {
        "prompt": prompt,
        "stream": True,
        "n_predict": -1 if task.max_tokens is None else task.max_tokens,
        "stop": task.stop,
        "n_keep": task.n_keep,
        "n_discard": task.n_discard,
        # A server knows no namespaces: what one user's prompts left is for nobody else.
        "cache_prompt": task.cache_prompt and (options.share_prefix or not task.cache_namespace),
        "return_progress": task.return_progress,
        **_sampling(task.sampling),
    }
    if task.max_seconds is not None:
        body["t_max_predict_ms"] = int(task.max_seconds * 1000)
    if task.lora is not None:
        body["lora"] = [{"id": adapter, "scale": scale} for adapter, scale in task.lora]
    return body


def embedding(task: EmbedTask) -> dict[str, Any]:
    """Return the body of ``POST /v1/embeddings``."""
    return {"input": task.inputs, "encoding_format": "base64"}


def reranking(task: RerankTask) -> dict[str, Any]:
    """Return the body of ``POST /v1/rerank``."""
    return {"query": task.query, "documents": task.documents}


def _sampling(sampling: Sampling) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(sampling)
    said = {name: value for name, value in fields.items() if name not in _OWN_FIELDS}
    if sampling.seed is not None:
        said["seed"] = sampling.seed
    if sampling.logit_bias:
        said["logit_bias"] = sampling.logit_bias
    if sampling.grammar:
        said["grammar"] = sampling.grammar
    if sampling.json_schema != "":
        said["json_schema"] = _schema(sampling.json_schema)
    return said


def _schema(schema: str | dict[str, Any]) -> Any:
    if not isinstance(schema, str):
        return schema
    try:
        return json.loads(schema)
    except ValueError as error:
        raise InvalidRequestError(
            f"json_schema is not JSON: {error}", param="json_schema"
        ) from error
