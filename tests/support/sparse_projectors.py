"""Projectors of any size: headers as converted files have them, weights as a hole in the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, ValueType
from llm_router_mw.testing.gguf import GGUFFile, Item, Tensor, array, scalar
from tests.support.model_headers import size_of

Shape = tuple[int, ...]
Plan = dict[str, tuple[str, Shape]]
"""Name → type and shape of a tensor, the length of a row first."""

MINICPMV_QUERIES = 64


@dataclass(frozen=True)
class Tower:
    """What a vision encoder and the projector behind it are like."""

    projector: str
    n_embd: int = 256
    n_ff: int = 512
    n_head: int = 4
    n_layer: int = 2
    image_size: int = 336
    patch_size: int = 14
    projection_dim: int = 512
    kind: str = "f16"
    metadata: Mapping[str, Item] = field(default_factory=dict)
    """Keys below ``clip.``, beside those that all have."""
    more: Mapping[str, tuple[str, Shape]] = field(default_factory=dict)
    """Tensors beside those that the projector has."""

    @property
    def n_side(self) -> int:
        """Patches in a row of a square image."""
        return self.image_size // self.patch_size

    def sized(self, **fields: int) -> Tower:
        """Return one like it of another size."""
        # A mapping of numbers is no argument that the fields' types allow.
        return replace(self, **fields)  # type: ignore[arg-type]


def write_projector(path: Path, tower: Tower) -> Path:
    """Write the file of *tower*; return its path."""
    metadata: dict[str | bytes, Item] = {
        "general.architecture": "clip",
        "clip.projector_type": tower.projector,
        "clip.has_vision_encoder": True,
        "clip.use_gelu": True,
        "clip.vision.embedding_length": tower.n_embd,
        "clip.vision.feed_forward_length": tower.n_ff,
        "clip.vision.attention.head_count": tower.n_head,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.block_count": tower.n_layer,
        "clip.vision.projection_dim": tower.projection_dim,
        "clip.vision.image_size": tower.image_size,
        "clip.vision.patch_size": tower.patch_size,
        "clip.vision.image_mean": array(ValueType.FLOAT32, [0.5] * 3),
        "clip.vision.image_std": array(ValueType.FLOAT32, [0.5] * 3),
        **{f"clip.{key}": item for key, item in tower.metadata.items()},
    }
    return write_tensors(path, metadata, {**_TENSORS[tower.projector](tower), **tower.more})


def write_tensors(path: Path, metadata: Mapping[str | bytes, Item], tensors: Plan) -> Path:
    """Write a file of *tensors* that takes no room on disk; return its path."""
    entries = [
        Tensor(name, shape, GGML_TYPE_NUMBERS[kind], size_of(kind, shape))
        for name, (kind, shape) in tensors.items()
    ]
    head = GGUFFile(metadata=metadata, tensors=entries).header()
    path.write_bytes(head)
    data = sum(entry.size_bytes + -entry.size_bytes % 32 for entry in entries)
    os.truncate(path, len(head) + -len(head) % 32 + data)
    return path


def layers(
    tower: Tower, *, gated: bool = False, fused: bool = False, bias: bool = True, prefix: str = "v"
) -> Plan:
    """Return the tensors of the layers of *tower*."""
    plan: Plan = {}
    n_embd, n_ff = tower.n_embd, tower.n_ff
    matrices = {"attn_out": (n_embd, n_embd), "ffn_up": (n_embd, n_ff), "ffn_down": (n_ff, n_embd)}
    if gated:
        matrices["ffn_gate"] = (n_embd, n_ff)
    if fused:
        matrices["attn_qkv"] = (n_embd, 3 * n_embd)
    else:
        matrices |= {f"attn_{name}": (n_embd, n_embd) for name in "qkv"}
    for layer in range(tower.n_layer):
        block = f"{prefix}.blk.{layer}"
        for name, shape in matrices.items():
            plan |= _linear(f"{block}.{name}", tower.kind, shape, bias=bias)
        for name in ("ln1", "ln2"):
            plan |= _norm(f"{block}.{name}", n_embd, bias=bias)
    return plan


def _linear(name: str, kind: str, shape: Shape, *, bias: bool = True) -> Plan:
    plan: Plan = {f"{name}.weight": (kind, shape)}
    return plan | {f"{name}.bias": ("f32", shape[-1:])} if bias else plan


def _norm(name: str, width: int, *, bias: bool = True) -> Plan:
    plan: Plan = {f"{name}.weight": ("f32", (width,))}
    return plan | {f"{name}.bias": ("f32", (width,))} if bias else plan


def _patches(tower: Tower, *, bias: bool = True, n_class: int = 0, positions: bool = True) -> Plan:
    """Return what turns an image into patches, and what says where each is."""
    size = tower.patch_size
    plan = _linear("v.patch_embd", "f16", (size, size, 3, tower.n_embd), bias=bias)
    if n_class:
        plan["v.class_embd"] = ("f32", (tower.n_embd,))
    if positions:
        n_pos = tower.n_side**2 + n_class
        plan["v.position_embd.weight"] = ("f32", (tower.n_embd, n_pos))
    return plan


def _llava(tower: Tower) -> Plan:
    return {
        **_patches(tower, bias=False, n_class=1),
        **layers(tower),
        **_norm("v.pre_ln", tower.n_embd),
    }


def _mlp(tower: Tower) -> Plan:
    width = tower.projection_dim
    return {
        **_llava(tower),
        **_linear("mm.0", tower.kind, (tower.n_embd, width)),
        **_linear("mm.2", tower.kind, (width, width)),
    }


def _ldp(tower: Tower) -> Plan:
    width = tower.projection_dim
    plan = {
        **_llava(tower),
        **_linear("mm.model.mlp.1", tower.kind, (tower.n_embd, width)),
        **_linear("mm.model.mlp.3", tower.kind, (width, width)),
    }
    for block in (1, 2):
        name = f"mm.model.mb_block.{block}.block"
        plan |= {
            f"{name}.0.0.weight": ("f16", (3, 3, 1, width)),
            **_norm(f"{name}.0.1", width),
            **_linear(f"{name}.1.fc1", tower.kind, (width, width // 4)),
            **_linear(f"{name}.1.fc2", tower.kind, (width // 4, width)),
            f"{name}.2.0.weight": (tower.kind, (width, width)),
            **_norm(f"{name}.2.1", width),
        }
    return plan


def _ldpv2(tower: Tower) -> Plan:
    width = tower.projection_dim
    return {
        **_llava(tower),
        **_linear("mm.model.mlp.0", tower.kind, (tower.n_embd, width)),
        **_linear("mm.model.mlp.2", tower.kind, (width, width)),
        "mm.model.peg.0.weight": ("f16", (3, 3, 1, width)),
        "mm.model.peg.0.bias": ("f32", (width,)),
    }


def _siglip(tower: Tower) -> Plan:
    return {**_patches(tower), **layers(tower), **_norm("v.post_ln", tower.n_embd)}


def _gemma3(tower: Tower) -> Plan:
    return {
        **_siglip(tower),
        "mm.input_projection.weight": (tower.kind, (tower.projection_dim, tower.n_embd)),
        "mm.soft_emb_norm.weight": ("f32", (tower.n_embd,)),
    }


def _idefics3(tower: Tower) -> Plan:
    scale = int(str(tower.metadata["vision.projector.scale_factor"]))
    shape = (tower.n_embd * scale**2, tower.projection_dim)
    return {**_siglip(tower), "mm.model.fc.weight": (tower.kind, shape)}


def _lfm2(tower: Tower) -> Plan:
    scale = int(str(tower.metadata["vision.projector.scale_factor"]))
    merged, width = tower.n_embd * scale**2, tower.projection_dim
    return {
        **_siglip(tower),
        **_norm("mm.input_norm", merged),
        **_linear("mm.1", tower.kind, (merged, width)),
        **_linear("mm.2", tower.kind, (width, width)),
    }


def _resampler(tower: Tower) -> Plan:
    width, n_embd = tower.projection_dim, tower.n_embd
    plan = {
        **_siglip(tower),
        "resampler.pos_embed_k": ("f32", (width, 64)),
        "resampler.query": ("f32", (width, MINICPMV_QUERIES)),
        "resampler.proj.weight": (tower.kind, (width, width)),
        "resampler.kv.weight": (tower.kind, (n_embd, width)),
    }
    for name in ("q", "k", "v", "out"):
        plan |= _linear(f"resampler.attn.{name}", tower.kind, (width, width))
    for name in ("q", "kv", "post"):
        plan |= _norm(f"resampler.ln_{name}", width)
    return plan


def _merger(tower: Tower) -> Plan:
    merged, width = tower.n_embd * 4, tower.projection_dim
    return {
        **_linear("mm.0", tower.kind, (merged, merged)),
        **_linear("mm.2", tower.kind, (merged, width)),
    }


def _two_patches(tower: Tower, *, bias: bool = False, positions: bool = False) -> Plan:
    size = tower.patch_size
    return {
        **_patches(tower, bias=bias, positions=positions),
        "v.patch_embd.weight.1": ("f16", (size, size, 3, tower.n_embd)),
    }


def _qwen2vl(tower: Tower) -> Plan:
    post = _norm("v.post_ln", tower.n_embd)
    return {**_two_patches(tower), **layers(tower), **post, **_merger(tower)}


def _qwen25vl(tower: Tower) -> Plan:
    post = _norm("v.post_ln", tower.n_embd, bias=False)
    return {**_two_patches(tower), **layers(tower, gated=True), **post, **_merger(tower)}


def _qwen3vl(tower: Tower) -> Plan:
    plan = {
        **_two_patches(tower, bias=True, positions=True),
        **layers(tower, fused=True),
        **_norm("v.post_ln", tower.n_embd),
        **_merger(tower),
    }
    merged = tower.n_embd * 4
    for layer in range(tower.n_layer // 2):
        name = f"v.deepstack.{layer}"
        plan |= _norm(f"{name}.norm", merged)
        plan |= _linear(f"{name}.fc1", tower.kind, (merged, merged))
        plan |= _linear(f"{name}.fc2", tower.kind, (merged, tower.projection_dim))
    return plan


def _pixtral(tower: Tower) -> Plan:
    n_embd, width = tower.n_embd, tower.projection_dim
    return {
        **_patches(tower, bias=False, positions=False),
        **layers(tower, gated=True, bias=False),
        **_norm("v.pre_ln", n_embd, bias=False),
        **_linear("mm.1", tower.kind, (n_embd, width)),
        **_linear("mm.2", tower.kind, (width, width)),
        "v.token_embd.img_break": ("f32", (width,)),
        "mm.input_norm.weight": ("f32", (n_embd,)),
        "mm.patch_merger.weight": (tower.kind, (n_embd * 4, n_embd)),
    }


def _internvl(tower: Tower) -> Plan:
    scale = int(str(tower.metadata["vision.projector.scale_factor"]))
    merged, width = tower.n_embd * scale**2, tower.projection_dim
    plan = {
        **_patches(tower, n_class=1),
        **layers(tower),
        **_norm("mm.model.mlp.0", merged),
        **_linear("mm.model.mlp.1", tower.kind, (merged, width)),
        **_linear("mm.model.mlp.3", tower.kind, (width, width)),
    }
    for layer in range(tower.n_layer):
        for name in ("ls1", "ls2"):
            plan[f"v.blk.{layer}.{name}.weight"] = ("f32", (tower.n_embd,))
    return plan


def with_sound(tower: Tower) -> Tower:
    """Return *tower* with an encoder of sound beside it, as Qwen2.5-Omni has one."""
    sound = replace(tower, n_embd=320, n_ff=1280, n_head=5, n_layer=3)
    n_embd, n_mel = sound.n_embd, 80
    plan: Plan = {
        **layers(sound, prefix="a"),
        **_norm("a.post_ln", n_embd),
        "a.position_embd.weight": ("f32", (n_embd, 1500)),
        "a.conv1d.1.weight": ("f16", (3, n_mel, n_embd)),
        "a.conv1d.1.bias": ("f32", (1, n_embd)),
        "a.conv1d.2.weight": ("f16", (3, n_embd, n_embd)),
        "a.conv1d.2.bias": ("f32", (1, n_embd)),
        **_linear("mm.a.fc", tower.kind, (n_embd, tower.projection_dim)),
    }
    metadata: dict[str, Item] = {
        "has_audio_encoder": True,
        "audio.embedding_length": n_embd,
        "audio.feed_forward_length": sound.n_ff,
        "audio.attention.head_count": sound.n_head,
        "audio.attention.layer_norm_epsilon": 1e-5,
        "audio.block_count": sound.n_layer,
        "audio.projection_dim": tower.projection_dim,
        "audio.num_mel_bins": n_mel,
    }
    # Keys have no bias in such encoders.
    more = {name: each for name, each in plan.items() if not name.endswith("attn_k.bias")}
    return replace(tower, metadata={**tower.metadata, **metadata}, more={**tower.more, **more})


_TENSORS = {
    "mlp": _mlp,
    "ldp": _ldp,
    "ldpv2": _ldpv2,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "lfm2": _lfm2,
    "resampler": _resampler,
    "qwen2vl_merger": _qwen2vl,
    "qwen2.5vl_merger": _qwen25vl,
    "qwen2.5o": _qwen25vl,
    "qwen3vl_merger": _qwen3vl,
    "qwen2a": lambda _: {},
    "pixtral": _pixtral,
    "internvl": _internvl,
}

TOWERS: dict[str, Tower] = {
    # As in the model that is named beside each, but for the number of layers.
    "llava-1.5": Tower("mlp", 1024, 4096, 16, 4, 336, 14, 4096),
    "mobilevlm": Tower("ldp", 1024, 4096, 16, 4, 336, 14, 2048),
    "mobilevlm-2": Tower("ldpv2", 1024, 4096, 16, 4, 336, 14, 2048),
    "gemma-3-4b": Tower("gemma3", 1152, 4304, 16, 4, 896, 14, 2560),
    "smolvlm": Tower(
        "idefics3", 768, 3072, 12, 4, 512, 16, 576, metadata={"vision.projector.scale_factor": 4}
    ),
    "lfm2-vl": Tower(
        "lfm2", 1152, 4304, 16, 4, 256, 16, 2048, metadata={"vision.projector.scale_factor": 2}
    ),
    "minicpm-v-2.6": Tower(
        "resampler",
        1152,
        4304,
        16,
        4,
        448,
        14,
        3584,
        metadata={"minicpmv_version": scalar(ValueType.INT32, 3)},
    ),
    "qwen2-vl": Tower("qwen2vl_merger", 1280, 5120, 16, 4, 560, 14, 3584),
    "qwen2.5-vl": Tower(
        "qwen2.5vl_merger", 1280, 3424, 16, 4, 560, 14, 3584, metadata={"vision.n_wa_pattern": 2}
    ),
    "qwen2.5-omni": with_sound(
        Tower("qwen2.5o", 1280, 3424, 16, 4, 560, 14, 3584, metadata={"vision.n_wa_pattern": 2})
    ),
    "qwen3-vl": Tower("qwen3vl_merger", 1152, 4304, 16, 4, 768, 16, 4096),
    "pixtral": Tower(
        "pixtral", 1024, 4096, 16, 4, 1540, 14, 5120, metadata={"vision.spatial_merge_size": 2}
    ),
    "internvl-3": Tower(
        "internvl", 1024, 4096, 16, 4, 448, 14, 3584, metadata={"vision.projector.scale_factor": 2}
    ),
}
SOUND = with_sound(Tower("qwen2a", metadata={"has_vision_encoder": False}))
"""One that encodes sound only, as Qwen2-Audio does."""
