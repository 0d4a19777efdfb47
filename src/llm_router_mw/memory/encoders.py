"""The encoders of images and sound in a projector's file, read as llama.cpp reads them."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

from msgspec import Struct

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGUFHeader
from llm_router_mw.memory.projector_kinds import ProjectorKind, projector_kind

ARCHITECTURE = "clip"
"""What the files of projectors call themselves."""
_AUDIO_FRAMES = 3000
"""Half a minute, which llama.cpp tries while it loads an encoder of sound; never more at once."""
_BATCH_TOKENS = 1024
"""Of all images that are computed at once, as long as nobody says otherwise."""
_NO_WIDTHS = ("resampler.pos_embed",)
_WINDOWS = ("n_wa_pattern", "window_size", "wa_layer_indexes")


class Encoder(Struct, frozen=True, kw_only=True):
    """One encoder and the projector behind it. Sizes are elements."""

    modality: str
    """``vision``, ``audio`` or ``gen.audio``."""
    projector: str
    """What llama.cpp calls the kind of projector."""
    kind: ProjectorKind
    n_layer: int
    n_embd: int
    n_head: int
    head: int
    n_ff: int
    is_gated: bool
    has_windows: bool
    n_class: int
    """Rows beside those of the patches."""
    n_deepstack: int
    """Layers whose results go to the model too."""
    n_rows: int
    """Patches of the image that is tried while it is loaded."""
    n_rows_max: int
    """Of the largest, and of all that are computed at once."""
    n_images: int
    """That are computed at once."""
    row_pixels: int
    """Values of one patch."""
    kernel_bytes: int
    """Of an element of what turns patches into rows."""
    n_merge: int
    width: int
    """Of the widest matrix behind the encoder."""
    n_embd_out: int
    """Of what the model is given; the same if the file does not say it rightly."""


def read_encoders(header: GGUFHeader, path: str) -> tuple[Encoder, ...]:
    """Return the encoders of the projector in the file *path* with *header*.

    Raises:
        ModelFileError: it is no projector, or does not say how large it is.
    """
    if header.architecture != ARCHITECTURE:
        raise ModelFileError(
            f"the file {path!r} holds a model ({header.architecture}), no multimodal projector; "
            "give the file whose name has 'mmproj' in it",
            param="mmproj",
        )
    found = tuple(
        _Reader(header, path, modality).encoder()
        for modality, key in (("vision", "vision"), ("audio", "audio"), ("gen.audio", "gen_audio"))
        if header.metadata.get(f"clip.has_{key}_encoder") is True
    )
    if not found:
        raise ModelFileError(
            f"the projector {path!r} has encoders neither of images nor of sound; "
            "it was converted by an old program: convert it again",
            param="mmproj",
        )
    # llama.cpp leaves this one's sound in the file.
    return found[:1] if found[0].projector == "gemma3nv" else found


class _Reader:
    """Reads what the file says about one modality."""

    def __init__(self, header: GGUFHeader, path: str, modality: str) -> None:
        self._header = header
        self._path = path
        self._modality = modality
        self._prefix = "v" if modality == "vision" else "a"
        self._names = frozenset(tensor.name for tensor in header.tensors)

    def encoder(self) -> Encoder:
        header, is_vision = self._header, self._modality == "vision"
        name = header.text("clip.projector_type")
        name = name or header.text(f"clip.{self._modality}.projector_type") or ""
        # One name stands for two projectors here.
        name = "qwen2.5vl_merger" if name == "qwen2.5o" and is_vision else name
        kind = projector_kind(name)
        n_embd, n_head = self._number("embedding_length"), self._number("attention.head_count")
        n_layer = self._number("block_count")
        n_merge = self._optional(kind.merge_key) or kind.n_merge
        patch = self._number("patch_size") if is_vision else 1
        rows, rows_max, n_images = self._rows(kind, patch, n_merge) if is_vision else _SOUND
        n_deepstack = sum(
            f"v.deepstack.{layer}.fc1.weight" in self._names
            for layer in range(min(n_layer, len(self._names)))
        )
        width = max((n_embd, *self._widths()))
        return Encoder(
            modality=self._modality,
            projector=name,
            kind=kind,
            n_layer=n_layer,
            n_embd=n_embd,
            n_head=n_head,
            head=self._optional("attention.head_dim") or n_embd // n_head,
            n_ff=self._number("feed_forward_length"),
            is_gated=f"{self._prefix}.blk.0.ffn_gate.weight" in self._names,
            has_windows=any(f"clip.vision.{key}" in header.metadata for key in _WINDOWS),
            n_class=int("v.class_embd" in self._names),
            n_deepstack=n_deepstack,
            n_rows=rows,
            n_rows_max=rows_max,
            n_images=n_images,
            row_pixels=3 * patch**2 if is_vision else self._number("num_mel_bins"),
            kernel_bytes=self._kernel_bytes(),
            n_merge=n_merge,
            width=width,
            # Old files give the width of something else, but those have no such layers.
            n_embd_out=self._optional("projection_dim") if n_deepstack else width,
        )

    def _rows(self, kind: ProjectorKind, patch: int, n_merge: int) -> tuple[int, int, int]:
        """Return the patches of the first image and of the largest, and how many come at once."""
        whole = (self._number("image_size") // patch) ** 2
        token = n_merge**2
        first = isqrt(kind.warmup_tokens) ** 2 * token or whole
        largest = kind.max_tokens * token or whole
        if not kind.is_known:
            largest = max(largest, self._optional("image_max_pixels") // patch**2, whole)
        n_images = max(1, _BATCH_TOKENS * token // max(1, whole)) if kind.is_batched else 1
        most = max(first, int(largest * kind.area_spare))
        return first, most * n_images, n_images

    def _widths(self) -> Iterator[int]:
        """Yield the sides of the matrices behind the encoder."""
        for tensor in self._header.tensors:
            is_sound = tensor.name.startswith(("mm.a.", "a.gen."))
            is_behind = tensor.name.startswith(("mm.", "resampler.", "adapter.")) or is_sound
            if is_behind and is_sound == (self._modality != "vision"):
                yield from () if tensor.name.startswith(_NO_WIDTHS) else tensor.shape

    def _kernel_bytes(self) -> int:
        halves = (GGML_TYPE_NUMBERS["f16"], GGML_TYPE_NUMBERS["bf16"])
        kernels = (
            each.ggml_type for each in self._header.tensors if each.name == "v.patch_embd.weight"
        )
        return 2 if next(kernels, halves[0]) in halves else 4

    def _optional(self, key: str) -> int:
        return self._header.integer(f"clip.{self._modality}.{key}") or 0

    def _number(self, key: str) -> int:
        value = self._optional(key)
        if value < 1:
            raise ModelFileError(
                f"the projector {self._path!r} does not say its clip.{self._modality}.{key}; "
                "the file is damaged or was converted by an old program: get it again",
                param="mmproj",
            )
        return value


_SOUND = (_AUDIO_FRAMES, _AUDIO_FRAMES, 1)
