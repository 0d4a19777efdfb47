"""Which tensors are sent elsewhere than their layer, for the engine and the estimators alike."""

from __future__ import annotations

from llm_router_mw.types import LoadOptions, Placement

HOST_BUFFER_TYPE = "CPU"
"""What ggml calls the host's plain buffer type."""
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"


def tensor_overrides(
    options: LoadOptions, placement: Placement | None = None
) -> tuple[tuple[str, str], ...]:
    """Return pairs of pattern and buffer type; the first pattern found in a name decides.

    A *placement* may send the experts of more layers to the host than *options* do.
    """
    n_cpu_moe = max(options.n_cpu_moe, placement.n_cpu_moe if placement is not None else 0)
    named = [override.rpartition("=") for override in options.override_tensor]
    overrides = [(pattern, buffer) for pattern, _, buffer in named]
    if options.cpu_moe:
        overrides.append((_EXPERTS, HOST_BUFFER_TYPE))
    overrides += [(rf"blk\.{layer}{_EXPERTS}", HOST_BUFFER_TYPE) for layer in range(n_cpu_moe)]
    return tuple(overrides)
