"""What the catalog knows: models, the options they load with, and the instances they share."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from llm_router_mw.types.memory import MeasuredMemory, SplitMode
from llm_router_mw.types.state import SleepLevel, Step

Pooling = Literal["", "none", "mean", "cls", "last", "rank"]
FlashAttention = Literal["auto", "on", "off"]
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


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
    n_ubatch: int = 0
    """Tokens computed at once; less needs less memory. 0 is 512, or for pooling ``n_batch``."""
    n_threads: int = 0
    """Threads for decoding; 0 is the number of usable cores."""
    n_gpu_layers: int = -1
    """Layers placed on the accelerator; -1 is all of them."""
    split_mode: SplitMode = "layer"
    """How several GPUs share the model: by layers, by rows, or not at all."""
    tensor_split: tuple[float, ...] = ()
    """Share of each GPU; empty is left to the placement."""
    main_gpu: int = 0
    """Index of the GPU that takes everything where ``split_mode`` is ``none``."""
    min_gpu_layers: int = 0
    """Where there are GPUs, so many layers lie on them at least, or the model is not loaded."""
    allow_partial_offload: bool = True
    """Whether a part of the layers may stay on the host where the GPUs have no room for all."""
    fit_ctx: int = 4096
    """With ``n_ctx`` 0, tokens to which the context may shrink so that the model fits."""
    override_tensor: tuple[str, ...] = ()
    """``regex=buffer type``: where tensors go whose names match; the first match counts."""
    cpu_moe: bool = False
    """Keep the weights of all experts on the host."""
    n_cpu_moe: int = 0
    """Keep the weights of the experts of the first so many layers on the host."""
    flash_attn: FlashAttention = "auto"
    type_k: CacheType = "f16"
    """How the keys of the KV cache are stored."""
    type_v: CacheType = "f16"
    """How the values of the KV cache are stored; a quantised type needs flash attention."""
    swa_full: bool = False
    """Whether layers with a sliding window keep the whole context."""
    offload_kqv: bool = True
    """Whether the KV cache lies on the GPU of its layer; otherwise on the host."""
    op_offload: bool = True
    """Whether large batches are computed on the GPU even with weights that lie on the host."""
    use_mmap: bool = True
    """Map the file instead of reading it."""
    use_mlock: bool = False
    """Keep the weights on the host in memory, never swapped out."""
    touch_context: bool = False
    """Whether the context takes all of its memory on the host at once, rather than as it fills."""
    pooling: Pooling = ""
    """Pooling of an embedding instance; empty means that the instance generates text."""
    chat_format: str = "template"
    """Name of a registered chat format."""
    chat_template: str = ""
    """Jinja template used instead of the file's own."""
    lora: tuple[LoraAdapter, ...] = ()
    """Adapters for the model; requests may change their scales."""


class InstanceKey(Struct, frozen=True, cache_hash=True):
    """Identity of an instance: the files and declared options, not the name that asked for it."""

    path: str
    options: LoadOptions

    def __str__(self) -> str:
        return self.path.rsplit("/", 1)[-1]


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said about a model rather than about its loading; None is as the router has it."""

    pinned: bool = False
    """Never evicted to make room."""
    priority: int = 0
    """Of its requests in the queue; higher goes first."""
    sleep_idle_seconds: float | None = None
    sleep_level: SleepLevel | None = None
    unload_idle_seconds: float | None = None
    evict_to: Step | None = None
    preload: bool | None = None
    """Whether it is loaded when the router starts."""
    kv_cache: bool | None = None
    """Whether its conversations are saved when its context is freed."""


class Model(Struct, frozen=True, kw_only=True):
    """A public name in the catalog. Cheap: nothing is loaded for it."""

    id: str
    path: str
    source: str
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    options: LoadOptions = LoadOptions()
    settings: ModelSettings = ModelSettings()
    """They do not tell instances apart: models that differ in nothing else share one."""

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
    memory: MeasuredMemory | None = None
    """What it holds; None if the engine does not tell."""
