"""Bodies of requests, and the tasks that they ask for."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llm_router_mw.api.keep_alive import keep_alive_seconds
from llm_router_mw.errors import InvalidRequestError, NotSupportedError
from llm_router_mw.types import ChatTask, CompletionTask, EmbedTask

_SAMPLING = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "seed",
    "repeat_last_n",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
)
"""Options that are called the same here."""

BodyT = TypeVar("BodyT", bound="ModelBody")


class ModelBody(Struct, kw_only=True):
    """What all bodies have."""

    model: str = ""
    keep_alive: float | str | None = None

    @property
    def keep_alive_seconds(self) -> float | None:
        """How long the model stays; None is as configured."""
        return keep_alive_seconds(self.keep_alive)


class GenerationBody(ModelBody, kw_only=True):
    """What ``chat`` and ``generate`` share."""

    stream: bool = True
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None


class ChatBody(GenerationBody, kw_only=True):
    """Body of ``POST /api/chat``."""

    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None

    def task(self, namespace: str) -> ChatTask | None:
        """Return what is asked for; None if nothing is but the model itself."""
        if not self.messages:
            return None
        if self.tools:
            raise NotSupportedError("tools are not supported here; leave them out", param="tools")
        if any(message.get("images") for message in self.messages):
            raise _no_images()
        messages = tuple(
            {"role": str(each.get("role", "")), "content": str(each.get("content") or "")}
            for each in self.messages
        )
        return _with_options(ChatTask(messages=messages, cache_namespace=namespace), self)


class GenerateBody(GenerationBody, kw_only=True):
    """Body of ``POST /api/generate``."""

    prompt: str = ""
    system: str = ""
    raw: bool = False
    suffix: str = ""
    images: list[str] | None = None

    def task(self, namespace: str) -> ChatTask | CompletionTask | None:
        """Return what is asked for; None if nothing is but the model itself."""
        if not self.prompt:
            return None
        if self.images:
            raise _no_images()
        if self.suffix:
            raise NotSupportedError("suffix is not supported here; leave it out", param="suffix")
        if self.raw:
            raw = CompletionTask(prompt=self.prompt, cache_namespace=namespace)
            return _with_options(raw, self)
        system = ({"role": "system", "content": self.system},) if self.system else ()
        messages = (*system, {"role": "user", "content": self.prompt})
        return _with_options(ChatTask(messages=messages, cache_namespace=namespace), self)


class EmbedBody(ModelBody, kw_only=True):
    """Body of ``POST /api/embed``."""

    input: str | list[str] = ""
    dimensions: int | None = None

    def task(self) -> EmbedTask:
        """Return what is asked for."""
        inputs = (self.input,) if isinstance(self.input, str) else tuple(self.input)
        return EmbedTask(inputs=inputs, dimensions=self.dimensions)


class EmbeddingsBody(ModelBody, kw_only=True):
    """Body of ``POST /api/embeddings``, the older form."""

    prompt: str = ""


def decoded(data: bytes, kind: type[BodyT]) -> BodyT:
    """Return *data* as a body.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        body = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(f"the body cannot be understood: {error}") from error
    if not body.model:
        raise InvalidRequestError("model is required", param="model")
    return body


TaskT = TypeVar("TaskT", ChatTask, CompletionTask)


def _with_options(task: TaskT, body: GenerationBody) -> TaskT:
    options = body.options or {}
    sampling = {name: options[name] for name in _SAMPLING if options.get(name) is not None}
    schema = _schema(body.format)
    if schema is not None:
        sampling["json_schema"] = schema
    stop, limit = options.get("stop"), options.get("num_predict")
    changes = {
        "sampling": sampling,
        "stop": [stop] if isinstance(stop, str) else stop or [],
        "max_tokens": None if limit == -1 else limit,
        "n_keep": options.get("num_keep") or 0,
    }
    try:
        return msgspec.convert(msgspec.to_builtins(task) | changes, type(task))
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"options: {error}", param="options") from error


def _schema(given: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if given is None or given == "":
        return None
    if given == "json":
        return {"type": "object"}
    if isinstance(given, str):
        raise InvalidRequestError(
            f"format is {given!r}; it must be 'json' or a schema", param="format"
        )
    return given


def _no_images() -> NotSupportedError:
    return NotSupportedError("images are not supported here; leave them out", param="images")
