"""What the catalog knows: models, the options they load with, and the instances they share."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Pooling = Literal["", "none", "mean", "cls", "last", "rank"]


class LoraAdapter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A LoRA adapter that is loaded with a model."""

    path: str
    scale: float = 1.0
    """Weight of what it adds, unless a request says otherwise; 0 is off."""


class LoadOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a file is loaded. Two models with equal files and options share one instance."""

    n_ctx: int = 0
    """Tokens of context that all sequences share; 0 lets the worker choose from the model."""
    n_parallel: int = 4
    """Requests decoded in the same batch at most."""
    kv_unified: bool = True
    """Whether all requests share the whole context, or each has ``n_ctx / n_parallel`` of its own.

    Separate parts decode a little faster; shared ones let a single request use all of it, and
    requests with a common beginning keep that only once.
    """
    share_prefix: bool = False
    """Whether users of different API keys may share what was computed for equal beginnings."""
    context_shift: bool = False
    """Whether an answer that fills the context goes on without its oldest part."""
    n_batch: int = 512
    """Tokens that one decode step may hold, prompt chunks included."""
    n_threads: int = 0
    """Threads for decoding; 0 is the number of usable cores."""
    n_gpu_layers: int = -1
    """Layers placed on the accelerator; -1 is all of them."""
    use_mmap: bool = True
    pooling: Pooling = ""
    """Pooling of an embedding instance; empty means that the instance generates text."""
    chat_format: str = "template"
    """Name of a registered chat format."""
    chat_template: str = ""
    """Jinja template used instead of the file's own."""
    lora: tuple[LoraAdapter, ...] = ()
    """Adapters for the model; requests may change their scales."""


class InstanceKey(Struct, frozen=True):
    """Identity of an instance: the files and declared options, not the name that asked for it."""

    path: str
    options: LoadOptions

    def __str__(self) -> str:
        return self.path.rsplit("/", 1)[-1]


class Model(Struct, frozen=True, kw_only=True):
    """A public name in the catalog. Cheap: nothing is loaded for it."""

    id: str
    path: str
    source: str
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    options: LoadOptions = LoadOptions()

    @property
    def instance_key(self) -> InstanceKey:
        return InstanceKey(self.path, self.options)


class ModelInfo(Struct, frozen=True, kw_only=True):
    """Facts that a worker reports once an instance is loaded (llama-server's ``meta``)."""

    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_params: int
    size_bytes: int
    n_parallel: int
    load_seconds: float
    description: str = ""
