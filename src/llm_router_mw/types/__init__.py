"""The words of the project: plain, frozen data that every floor may use."""

from llm_router_mw.types.delta import (
    ContentDelta,
    Delta,
    EmbeddingDelta,
    FailureDelta,
    FinishDelta,
    FinishReason,
    ProgressDelta,
    Timings,
    TokenProb,
    TokenProbs,
    Usage,
)
from llm_router_mw.types.failure import Failure
from llm_router_mw.types.model import (
    InstanceKey,
    LoadOptions,
    LoraAdapter,
    Model,
    ModelInfo,
    Pooling,
)
from llm_router_mw.types.reply import EmbeddingReply, TextReply
from llm_router_mw.types.state import InstanceState, client_state
from llm_router_mw.types.task import (
    DEFAULT_SAMPLERS,
    ChatTask,
    CompletionTask,
    EmbedTask,
    GenerationTask,
    RerankTask,
    Sampling,
    Task,
)
from llm_router_mw.types.view import EventKind, ModelView, RouterEvent

__all__ = [
    "DEFAULT_SAMPLERS",
    "ChatTask",
    "CompletionTask",
    "ContentDelta",
    "Delta",
    "EmbedTask",
    "EmbeddingDelta",
    "EmbeddingReply",
    "EventKind",
    "Failure",
    "FailureDelta",
    "FinishDelta",
    "FinishReason",
    "GenerationTask",
    "InstanceKey",
    "InstanceState",
    "LoadOptions",
    "LoraAdapter",
    "Model",
    "ModelInfo",
    "ModelView",
    "Pooling",
    "ProgressDelta",
    "RerankTask",
    "RouterEvent",
    "Sampling",
    "Task",
    "TextReply",
    "Timings",
    "TokenProb",
    "TokenProbs",
    "Usage",
    "client_state",
]
