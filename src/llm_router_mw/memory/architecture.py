"""What llama.cpp knows of an architecture and no file says: which layers have which memory.

Read from llama.cpp's sources (``src/models/*.cpp``, ``llama_model::create_memory``).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Recurrence = Literal["none", "all", "no-kv-heads", "both", "nemotron", "interval"]
"""Which layers are recurrent: none, all; those without KV heads; all have both kinds of memory;
those without KV heads and feed-forward; all but each n-th."""


class Window(Struct, frozen=True, kw_only=True):
    """Which layers of an architecture look back over a sliding window only."""

    period: int = 0
    """One layer of so many is dense; 0: the file lists the layers."""
    dense_first: bool = False
    """Whether the dense layer is the first of each period, not the last."""
    n_window: int = 0
    """Tokens of the window if the file does not say; 0: without a window in the file all layers
    are dense."""
    is_fixed: bool = False
    """Whether ``n_window`` wins over the file's number."""
    only_n_layer: int = 0
    """The window exists in models of so many layers only; 0 is any number."""


class Architecture(Struct, frozen=True, kw_only=True):
    """Facts about one architecture; the defaults are those of a plain decoder."""

    is_known: bool = True
    """Whether the formulas are known to hold."""
    is_encoder: bool = False
    """Whether it has no memory between steps at all."""
    has_output: bool = True
    """Whether it turns into tokens what it computes; a missing matrix is then the embedding's."""
    scores_embeddings: bool = True
    """Whether tokens are scored even where only embeddings are wanted."""
    window: Window | None = None
    recurrence: Recurrence = "none"
    n_layer_with_kv: int | None = None
    """Layers from the first on that have a cache of their own; later ones share theirs."""
    n_streams: int = 0
    """Further copies of the residual stream that live through all phases."""
    has_flash_attention: bool = True
    """Whether llama.cpp computes it with flash attention at all."""
    has_gated_query: bool = False
    """Whether the queries are computed together with a gate of their size."""


_PLAIN = Architecture()
_ENCODER = Architecture(is_encoder=True, has_output=False)
_NO_KV_HEADS = Architecture(recurrence="no-kv-heads")
_ALL_RECURRENT = Architecture(recurrence="all")
_LISTED = Architecture(window=Window())
_NEMOTRON = Architecture(recurrence="nemotron")
_QWEN_NEXT = Architecture(recurrence="interval", has_gated_query=True)


def _windowed(period: int, n_window: int = 0, **more: bool | int) -> Architecture:
    window = Window(period=period, n_window=n_window, **more)  # type: ignore[arg-type]
    return Architecture(window=window)


_ARCHITECTURES: dict[str, Architecture] = {
    **dict.fromkeys(
        [
            *[
                "apertus",
                "arcee",
                "baichuan",
                "bailingmoe",
                "bailingmoe2",
                "bloom",
                "chatglm",
                "codeshell",
            ],
            *["command-r", "dbrx", "deepseek", "deepseek2", "dots1", "ernie4_5", "ernie4_5-moe"],
            *[
                "exaone",
                "falcon",
                "gemma",
                "glm4",
                "glm4moe",
                "gpt2",
                "gptneox",
                "granite",
                "granitemoe",
                "grok",
            ],
            *[
                "hunyuan-dense",
                "hunyuan-moe",
                "internlm2",
                "llama",
                "minicpm",
                "minicpm3",
                "minimax-m2",
            ],
            *[
                "mistral3",
                "mpt",
                "nemotron",
                "olmo",
                "olmoe",
                "openelm",
                "orion",
                "phi2",
                "phi3",
                "phimoe",
            ],
            *["plamo", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl"],
            *["qwen3vlmoe", "refact", "seed_oss", "smollm3", "stablelm", "starcoder", "deci"],
            *["starcoder2", "xverse"],
        ],
        _PLAIN,
    ),
    **dict.fromkeys(
        [
            *["bert", "eurobert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert"],
            *["nomic-bert", "nomic-bert-moe"],
        ],
        _ENCODER,
    ),
    **dict.fromkeys(["dream", "llada", "llada-moe", "rnd1"], Architecture(is_encoder=True)),
    "gemma-embedding": Architecture(is_encoder=True, scores_embeddings=False),
    "grok": Architecture(has_flash_attention=False),
    **dict.fromkeys(["afmoe", "cohere2", "mellum", "muse-glimmer", "olmo2"], _windowed(4)),
    "cohere2moe": _windowed(4, dense_first=True),
    "exaone-moe": _windowed(4, 128),
    "exaone4": _windowed(4, 4096, only_n_layer=64),
    "gemma2": _windowed(2, 4096),
    "gemma3": _windowed(6),
    "gemma3n": Architecture(window=Window(period=5), n_layer_with_kv=20, n_streams=9),
    "gpt-oss": _windowed(2),
    "laguna": _windowed(4, dense_first=True),
    "llama4": _windowed(4, 8192, is_fixed=True),
    "plamo3": _windowed(8),
    "smallthinker": _windowed(4, 4096, dense_first=True, is_fixed=True),
    **dict.fromkeys(["gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"], _LISTED),
    **dict.fromkeys(["mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"], _ALL_RECURRENT),
    **dict.fromkeys(["granitehybrid", "jamba", "plamo2"], _NO_KV_HEADS),
    **dict.fromkeys(
        ["lfm2", "lfm2moe"], Architecture(recurrence="no-kv-heads", scores_embeddings=False)
    ),
    "falcon-h1": Architecture(recurrence="both"),
    **dict.fromkeys(["nemotron_h", "nemotron_h_moe"], _NEMOTRON),
    **dict.fromkeys(["qwen3next", "qwen35", "qwen35moe"], _QWEN_NEXT),
}


def architecture(name: str) -> Architecture:
    """Return what is known of the architecture called *name*.

    An unknown one is taken for a plain decoder, and says that it is unknown.
    """
    return _ARCHITECTURES.get(name, Architecture(is_known=False))
