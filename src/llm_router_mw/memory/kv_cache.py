"""Keys and values of the tokens in a context: exact, by layer.

Follows ``llama_kv_cache`` and ``llama_kv_cache_iswa``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.resolved_context import ResolvedContext, row_bytes
from llm_router_mw.types import HOST

TensorBytes = Callable[[str, int, int, int], int]
"""Of (device, ggml type, elements of a row, rows): what the tensor takes there."""


def plain_bytes(device: str, ggml_type: int, n_elements: int, n_rows: int) -> int:
    """Return the bytes of a tensor that is padded to nothing."""
    return row_bytes(ggml_type, n_elements) * n_rows


def kv_cache_bytes(
    model: Hyperparameters,
    context: ResolvedContext,
    layers: Layers,
    *,
    offloaded: bool = True,
    tensor_bytes: TensorBytes = plain_bytes,
) -> dict[str, int]:
    """Return the bytes of the cache on each device; all on the host if it is not *offloaded*."""
    found: dict[str, int] = defaultdict(int)
    widest = max(model.n_embd_v, default=0)
    per_layer = zip(model.n_embd_k, model.n_embd_v, model.is_swa, model.has_kv, strict=True)
    for layer, (width_k, width_v, swa, has_kv) in enumerate(per_layer):
        if not has_kv:
            continue
        device = layers.repeating[layer] if offloaded else HOST
        rows = (context.n_ctx_swa if swa else context.n_ctx_seq) * context.n_stream
        found[device] += tensor_bytes(device, context.type_k, width_k, rows)
        if not model.is_mla:  # the latent vector of the keys holds the values too
            width = widest if context.pads_values else width_v
            found[device] += tensor_bytes(device, context.type_v, width, rows)
    return dict(found)
