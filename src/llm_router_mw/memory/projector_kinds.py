"""What llama.cpp knows of each kind of projector and no file says: images, shapes of graphs.

Read from llama.cpp's sources (``tools/mtmd/clip.cpp``, ``tools/mtmd/models/*.cpp``); what a graph
holds was fitted to graphs that llama.cpp reserved.
"""

from __future__ import annotations

from msgspec import Struct


class ProjectorKind(Struct, frozen=True, kw_only=True):
    """Facts about one kind; the defaults are those of a plain encoder of square images."""

    is_known: bool = True
    """Whether the formulas are known to hold."""
    n_merge: int = 1
    """Patches along each side that become one token, if the file does not say."""
    merge_key: str = "projector.scale_factor"
    warmup_tokens: int = 0
    """Of the image that is tried while it is loaded; 0 is an image of the file's size."""
    max_tokens: int = 0
    """Of the largest image; 0 is one of the file's size."""
    area_spare: float = 1.0
    """How much larger than they should be pieces of large images may be cut."""
    is_batched: bool = False
    """Whether several images are computed at once."""
    n_held: int = 0
    """Rows of the encoder's width that are held for each patch while all layers compute."""
    holds_image: bool = False
    """Whether room for the image stays taken meanwhile."""
    n_attending: int = 5
    """Rows that are alive at once while a layer attends."""
    per_patch: float = 0.0
    """Rows of the projector's width that are alive for each patch at the end."""
    per_token: float = 2.0
    """The same for each token that comes out."""
    n_queries: int = 0
    """The same for each image."""


_SPATIAL = "spatial_merge_size"
_QWEN_VL = ProjectorKind(
    n_merge=2,
    merge_key=_SPATIAL,
    warmup_tokens=46 * 46,
    max_tokens=4096,
    n_held=1,
)
_LLAVA = ProjectorKind(n_held=1, holds_image=True, per_patch=2.0, per_token=0.0)
_KINDS = {
    "mlp": _LLAVA,
    "ldp": ProjectorKind(n_held=1, holds_image=True, per_patch=6.5, per_token=0.0),
    "ldpv2": ProjectorKind(n_held=1, holds_image=True, per_patch=2.5, per_token=0.0),
    "resampler": ProjectorKind(
        area_spare=1.15, holds_image=True, per_patch=3.5, per_token=0.0, n_queries=128
    ),
    "gemma3": ProjectorKind(n_merge=4),
    "idefics3": ProjectorKind(),
    "lfm2": ProjectorKind(warmup_tokens=256, max_tokens=256),
    "pixtral": ProjectorKind(
        merge_key=_SPATIAL, warmup_tokens=256, max_tokens=1024, n_held=1, per_token=3.0
    ),
    "internvl": ProjectorKind(is_batched=True),
    "qwen2vl_merger": _QWEN_VL,
    "qwen2.5vl_merger": ProjectorKind(
        n_merge=2,
        merge_key=_SPATIAL,
        warmup_tokens=46 * 46,
        max_tokens=4096,
        n_held=1,
        holds_image=True,
    ),
    "qwen3vl_merger": ProjectorKind(
        n_merge=2,
        merge_key=_SPATIAL,
        warmup_tokens=46 * 46,
        max_tokens=4096,
        n_held=1,
        holds_image=True,
        n_attending=7,
    ),
}
_MAX_TOKENS = {
    "gemma4v": 1120,
    "gemma4uv": 1120,
    "glm4v": 4096,
    "hunyuanvl": 16_384,
    "kimik25": 4096,
    "kimivl": 1024,
    "ling3vl": 4096,
    "minimax_m3": 576,
    "muse-glimmer": 4096,
    "youtuvl": 62_500,
}
"""Of the largest images of kinds that are not known otherwise."""
_UNKNOWN_MERGE = 3


def projector_kind(name: str) -> ProjectorKind:
    """Return what is known of the projectors called *name*; much is assumed of unknown ones."""
    known = _KINDS.get(name)
    if known is not None:
        return known
    max_tokens = _MAX_TOKENS.get(name, 0)
    return ProjectorKind(
        is_known=False,
        n_merge=_UNKNOWN_MERGE if max_tokens else 1,
        merge_key=_SPATIAL,
        max_tokens=max_tokens,
        is_batched=True,
        n_held=2,
        holds_image=True,
        n_attending=8,
        per_patch=4.0,
        n_queries=256,
    )
