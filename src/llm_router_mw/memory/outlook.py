"""Whether a model will fit, and what would: for people who ask before they load, or buy."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from llm_router_mw.memory.draft import WithDraft
from llm_router_mw.memory.fit import largest_context
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.pools import by_pool
from llm_router_mw.memory.projector import Projector, WithProjector
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import Confidence, Cost, Device, DeviceKind, Model, Placement


class DeviceOutlook(Struct, frozen=True, kw_only=True):
    """What a model takes of one device."""

    id: str
    kind: DeviceKind
    name: str
    total_bytes: int
    free_bytes: int
    margin_bytes: int
    expected: Cost
    expected_bytes: int
    upper_bytes: int
    free_after_bytes: int
    """What is left beside the margin if the most is taken; below 0 is what is short."""


class ProjectorOutlook(Struct, frozen=True, kw_only=True):
    """What a multimodal projector takes; that is part of what its device's row says."""

    projector: str
    """What llama.cpp calls its kind."""
    device: str
    weights_bytes: int
    compute_bytes: int
    """For the image that llama.cpp tries at the start."""
    upper_bytes: int
    """At most, for the largest image."""
    confidence: Confidence


class Outlook(Struct, frozen=True, kw_only=True):
    """What a model takes of a machine."""

    model: str
    architecture: str
    source: str
    confidence: Confidence
    n_ctx: int
    n_ctx_train: int
    fits: bool
    devices: tuple[DeviceOutlook, ...]
    soft_bytes: int
    largest_n_ctx: int
    """The longest context that fits; 0 if none does."""
    largest_n_ctx_quantised: int
    """The same with a cache of ``q8_0``; 0 also where that changes nothing."""
    notes: tuple[str, ...]
    projector: ProjectorOutlook | None = None


def look_ahead(
    model: Model,
    placement: Placement,
    devices: Sequence[Device],
    margin_bytes: int,
    draft: str | None = None,
    mmproj: str | None = None,
    *,
    mmproj_offload: bool = True,
) -> Outlook:
    """Return how *model* fits onto *devices* where *margin_bytes* of each must stay free.

    It comes with the model in the file *draft* and the multimodal projector in *mmproj*, if there
    are any. The projector goes to the first GPU, unless *mmproj_offload* is off.

    Raises:
        ModelFileError: a file is missing, or is none of its kind.
    """
    estimator = MetadataEstimator() if draft is None else WithDraft(draft)
    beside: Projector | None = None
    if mmproj is not None:
        estimator = WithProjector(estimator, mmproj, is_offloaded=mmproj_offload)
        beside = estimator.projector(placement)
    shape = estimator.files.read(model).shape
    found = estimator.estimate(model, placement, devices)
    needed = by_pool(found.upper, devices)
    room = {device.pool: device.free_bytes - margin_bytes for device in devices}
    described = tuple(
        DeviceOutlook(
            id=device.id,
            kind=device.kind,
            name=device.name,
            total_bytes=device.total_bytes,
            free_bytes=device.free_bytes,
            margin_bytes=margin_bytes,
            expected=found.expected[device.id],
            expected_bytes=found.expected[device.id].total_bytes,
            upper_bytes=found.upper[device.id],
            free_after_bytes=room[device.pool] - needed[device.pool],
        )
        for device in devices
        if device.id in found.expected
    )
    quantised = structs.replace(
        model, options=structs.replace(model.options, type_k="q8_0", type_v="q8_0")
    )
    shorter = model.options.flash_attn != "off" and any(shape.has_kv)
    return Outlook(
        model=model.id,
        architecture=shape.name,
        source=found.source,
        confidence=found.confidence,
        n_ctx=resolve_context(shape, model.options, placement.n_ctx).n_ctx,
        n_ctx_train=shape.n_ctx_train,
        fits=all(each.free_after_bytes >= 0 for each in described),
        devices=described,
        soft_bytes=found.soft_bytes,
        largest_n_ctx=largest_context(model, placement, devices, room, estimator),
        largest_n_ctx_quantised=(
            largest_context(quantised, placement, devices, room, estimator) if shorter else 0
        ),
        notes=found.notes,
        projector=None if beside is None else _projector_outlook(beside),
    )


def _projector_outlook(projector: Projector) -> ProjectorOutlook:
    return ProjectorOutlook(
        projector=projector.name,
        device=projector.device,
        weights_bytes=projector.weights_bytes,
        compute_bytes=projector.compute_bytes,
        upper_bytes=projector.upper_bytes,
        confidence=projector.confidence,
    )
