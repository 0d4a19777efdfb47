"""Every error of the package. A class is a condition; it carries the status that clients see.

LLMRouterError
├── ConfigError                  at start-up: an option or a directory is wrong
├── PluginError                  at start-up
│   ├── PluginLoadError
│   └── PluginConflictError
├── RequestError                 the request cannot be served as it is (4xx)
│   ├── InvalidRequestError      400, names the field
│   ├── ContextExceededError     400 exceed_context_size_error
│   ├── ModelNotLoadedError      400, autoload is off
│   ├── AuthenticationError      401
│   ├── PermissionDeniedError    403, the key may not ask for that
│   ├── ModelNotFoundError       404
│   ├── PathNotFoundError        404
│   ├── MethodNotAllowedError    405
│   ├── ModelFileError           422, the file cannot be used
│   │   └── InvalidGGUFError
│   ├── RequestTooLargeError     413
│   ├── NotSupportedError        501
│   └── ModelTooLargeError       507, names each device's shortage
├── AvailabilityError            the request is fine, now is not a good time (503 + Retry-After)
│   ├── RouterNotRunningError
│   ├── QueueFullError           429
│   ├── QueueTimeoutError
│   ├── ModelCoolingDownError
│   ├── RequestLeftError         nobody waits for it any more: only guards are told
│   ├── GuardFailedError         a plugin that has to let it pass has failed
│   ├── ModelUnloadedError       what the request waited for, or ran on, was taken back
│   └── LeaseExpiredError
├── ModelLoadError               502
├── DownloadError                502, the hub does not give what it should
│   └── DiskFullError            507
├── WorkerDiedError              502
├── HostDiedError                502, with it the router that several processes share
├── ClientStalledError           the client stopped reading
├── SnapshotError                a saved conversation cannot be written, or is of no use
└── WireError                    the peer on the pipe broke the protocol
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from llm_router_mw.types import ErrorLook, Failure


class LLMRouterError(Exception):
    """Base of all errors that this package raises on purpose."""

    status: ClassVar[int] = 500
    """HTTP status."""
    error_type: ClassVar[str] = "server_error"
    """llama-server's and OpenAI's ``error.type``."""
    code: ClassVar[str | None] = None
    """OpenAI's ``error.code``; None leaves the status in its place."""
    default_retry_after_seconds: ClassVar[float | None] = None
    """When it makes sense to ask again, if the error itself does not say it."""

    def __init__(self, message: str, **fields: Any) -> None:
        # Names of files may be no text, and then nobody could be told of them.
        self.message = message.encode(errors="replace").decode()
        super().__init__(self.message)
        self.fields = fields

    @property
    def param(self) -> str | None:
        """Name of the request field that is at fault."""
        return self.fields.get("param")

    @property
    def retry_after_seconds(self) -> float | None:
        """When it makes sense to ask again."""
        return self.fields.get("retry_after_seconds", self.default_retry_after_seconds)

    def to_failure(self) -> Failure:
        """Return the error as data that can cross the pipe."""
        known = _BY_NAME.get(type(self).__name__, LLMRouterError)
        look = ErrorLook(self.status, self.error_type, self.code)
        if look == ErrorLook(known.status, known.error_type, known.code):
            return Failure(kind=type(self).__name__, message=self.message, fields=self.fields)
        fields = {**self.fields, "retry_after_seconds": self.retry_after_seconds}
        return Failure(kind=type(self).__name__, message=self.message, fields=fields, look=look)


class ConfigError(LLMRouterError):
    """An option is wrong; the message names it and says what is allowed."""


class PluginError(LLMRouterError):
    """A plugin cannot be used."""


class PluginLoadError(PluginError):
    """A plugin could not be imported or registered."""


class PluginConflictError(PluginError):
    """Two plugins supply an object of the same kind and name."""


class RequestError(LLMRouterError):
    """The request cannot be served as it is."""

    status = 400
    error_type = "invalid_request_error"


class InvalidRequestError(RequestError):
    """A field is missing, of the wrong type or out of range; ``param`` names it."""


class ContextExceededError(RequestError):
    """The prompt does not fit the context; fields ``n_prompt_tokens`` and ``n_ctx``."""

    error_type = "exceed_context_size_error"
    code = "context_length_exceeded"


class ModelNotLoadedError(RequestError):
    """The model is not loaded and loading on demand is off."""

    code = "model_not_loaded"


class AuthenticationError(RequestError):
    """The API key is missing or wrong."""

    status = 401
    error_type = "authentication_error"
    code = "invalid_api_key"


class PermissionDeniedError(RequestError):
    """The API key does not allow what a field asks for; ``param`` names it."""

    status = 403
    error_type = "permission_error"
    code = "permission_denied"


class ModelNotFoundError(RequestError):
    """No model of that name is in the catalog."""

    status = 404
    error_type = "not_found_error"
    code = "model_not_found"


class PathNotFoundError(RequestError):
    """Nothing is served at that path."""

    status = 404
    error_type = "not_found_error"


class MethodNotAllowedError(RequestError):
    """The path exists, but not for that HTTP method."""

    status = 405


class ModelFileError(RequestError):
    """The model's file is missing, unreadable or not a model."""

    status = 422
    code = "model_file_unusable"


class InvalidGGUFError(ModelFileError):
    """The file is not a well-formed GGUF."""

    code = "model_file_invalid"


class RequestTooLargeError(RequestError):
    """The body is larger than ``max_body_bytes``."""

    status = 413
    code = "request_too_large"


class NotSupportedError(RequestError):
    """The model or this server cannot do what is asked."""

    status = 501
    error_type = "not_supported_error"


class ModelTooLargeError(RequestError):
    """The model would not fit if everything else were gone.

    Field ``devices`` maps each memory pool to ``needed_bytes`` and ``available_bytes``.
    """

    status = 507
    error_type = "insufficient_memory_error"
    code = "model_too_large"


class AvailabilityError(LLMRouterError):
    """The request is fine; now is not a good time."""

    status = 503
    error_type = "unavailable_error"
    default_retry_after_seconds = 1.0


class RouterNotRunningError(AvailabilityError):
    """The router has not been started, or has been closed."""


class QueueFullError(AvailabilityError):
    """More requests wait already than ``max_queue`` allows.

    Fields ``position`` and ``expected_wait_seconds``, where known, say how it would have stood.
    """

    status = 429
    error_type = "rate_limit_error"
    code = "queue_full"


class QueueTimeoutError(AvailabilityError):
    """No instance became free within ``queue_timeout_seconds``."""

    code = "queue_timeout"


class ModelCoolingDownError(AvailabilityError):
    """The last load failed a moment ago; it is not tried again yet."""

    code = "model_cooling_down"


class RequestLeftError(AvailabilityError):
    """Who asked has left before the request was served."""

    code = "request_left"


class GuardFailedError(AvailabilityError):
    """A request guard failed, or took too long; what it has not let pass is not served."""

    code = "guard_failed"


class ModelUnloadedError(AvailabilityError):
    """The model was unloaded while the request waited for it, or was answered."""

    code = "model_unloaded"


class LeaseExpiredError(AvailabilityError):
    """The lease has been released or was held longer than ``max_lease_seconds``."""

    code = "lease_expired"


class ModelLoadError(LLMRouterError):
    """llama.cpp could not load the model."""

    status = 502
    code = "model_load_failed"

    @property
    def out_of_memory(self) -> bool:
        """Whether it was for lack of memory: with more of it, the same load may succeed."""
        return bool(self.fields.get("out_of_memory"))


class DownloadError(LLMRouterError):
    """A file could not be fetched from the hub."""

    status = 502
    code = "model_download_failed"


class DiskFullError(DownloadError):
    """The disk has no room for the file; fields ``needed_bytes`` and ``available_bytes``."""

    status = 507
    code = "disk_full"


class WorkerDiedError(LLMRouterError):
    """The worker process ended in the middle of the request."""

    status = 502
    code = "worker_died"


class HostDiedError(LLMRouterError):
    """The process of the shared router ended in the middle of the request."""

    status = 502
    code = "host_died"


class ClientStalledError(LLMRouterError):
    """The client did not read for ``client_stall_seconds``; its request was cancelled."""

    status = 408
    code = "client_stalled"


class SnapshotError(LLMRouterError):
    """A saved conversation cannot be written, or what was read is of no use.

    Seen by plugins, and by who asks for all to be removed where that cannot be done: a request goes
    on as if there were no such file.
    """

    @property
    def out_of_space(self) -> bool:
        """Whether it was for lack of room in the file system."""
        return bool(self.fields.get("out_of_space"))


class WireError(LLMRouterError):
    """The peer on the pipe sent something that the protocol does not allow."""


def _subclasses(base: type[LLMRouterError]) -> dict[str, type[LLMRouterError]]:
    found = {base.__name__: base}
    for child in base.__subclasses__():
        found |= _subclasses(child)
    return found


_BY_NAME = _subclasses(LLMRouterError)


def error_from(failure: Failure) -> LLMRouterError:
    """Return the error that *failure* describes.

    One of an unknown kind is of the base class, and looks to clients as it did where it came from.
    """
    error = _BY_NAME.get(failure.kind, LLMRouterError)(failure.message, **failure.fields)
    if failure.look is not None:
        vars(error).update(msgspec.structs.asdict(failure.look))
    return error
