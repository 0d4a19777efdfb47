"""What a model takes together with a smaller one that drafts for it, in one process.

As llama-server does it: the draft model has a context of its own, as long and for as many sequences
as that of the model that it drafts for, on the same devices.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.overhead import PROCESS
from llm_router_mw.memory.phases import Need
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import HOST, Cost, Device, LoadOptions, MemoryEstimate, Model, Placement

_NOTHING = Cost()


class WithDraft(MetadataEstimator):
    """Prices a model and the one in the file *draft* together."""

    def __init__(self, draft: str) -> None:
        super().__init__()
        self._draft = draft

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate:
        """Return what both need where *placement* puts them.

        Raises:
            ModelFileError: a file is missing or is no language model.
        """
        found = super().estimate(model, placement, devices)
        shape = self.files.read(model).shape
        n_ctx = resolve_context(shape, model.options, placement.n_ctx).n_ctx
        drafting = Model(
            id=self._draft, path=self._draft, source=model.source, options=_options(model.options)
        )
        # A small model is not divided as the large one is: all of its layers go to the GPUs.
        whole = -1 if placement.devices else 0
        where = structs.replace(placement, n_ctx=n_ctx, n_gpu_layers=whole, n_cpu_moe=0)
        return self._together(found, super().estimate(drafting, where, devices), devices)

    def _together(
        self, first: MemoryEstimate, second: MemoryEstimate, devices: Sequence[Device]
    ) -> MemoryEstimate:
        """Return the sum; what is there once in a process is counted once."""
        expected: dict[str, Cost] = {}
        upper: dict[str, int] = {}
        for device in dict.fromkeys((*first.expected, *second.expected)):
            one = first.expected.get(device, _NOTHING)
            two = second.expected.get(device, _NOTHING)
            is_shared = device in first.expected and device in second.expected
            once = self._once(device, devices) if is_shared else Need(0, 0)
            expected[device] = Cost(
                weights_bytes=one.weights_bytes + two.weights_bytes,
                context_bytes=one.context_bytes + two.context_bytes,
                compute_bytes=one.compute_bytes + two.compute_bytes,
                overhead_bytes=one.overhead_bytes + two.overhead_bytes - once.expected,
            )
            most = first.upper.get(device, 0) + second.upper.get(device, 0)
            upper[device] = most - once.most
        is_low = "low" in (first.confidence, second.confidence)
        return structs.replace(
            first,
            expected=expected,
            upper=upper,
            confidence="low" if is_low else first.confidence,
            soft_bytes=first.soft_bytes + second.soft_bytes,
            notes=(*first.notes, *(f"draft model: {note}" for note in second.notes)),
        )

    def _once(self, device: str, devices: Sequence[Device]) -> Need:
        if device == HOST:
            return PROCESS
        kinds = {each.id: each.kind for each in devices}
        return self.overhead.on(device, kinds.get(device, "other"))


def _options(options: LoadOptions) -> LoadOptions:
    """Return how a draft model is loaded beside one with *options*."""
    return LoadOptions(
        n_parallel=options.n_parallel,
        kv_unified=options.kv_unified,
        n_batch=options.n_batch,
        n_ubatch=options.n_ubatch,
        flash_attn=options.flash_attn,
        swa_full=options.swa_full,
        use_mmap=options.use_mmap,
        use_mlock=options.use_mlock,
    )
