"""The request field ``lora``: other scales for the adapters of a model."""

from __future__ import annotations

from msgspec import Struct

from llm_router_mw.errors import InvalidRequestError

_MAX_ADAPTERS = 1024


class LoraScale(Struct, frozen=True):
    """An adapter, by its place in the model's load option ``lora``, and its scale."""

    id: int
    scale: float


def lora_scales(given: list[LoraScale] | None) -> tuple[tuple[int, float], ...] | None:
    """Return what a task takes; None if the request says nothing.

    Raises:
        InvalidRequestError: an entry cannot be right for any model.
    """
    if given is None:
        return None
    if len(given) > _MAX_ADAPTERS:
        raise InvalidRequestError(
            f"lora has {len(given)} entries; at most {_MAX_ADAPTERS} are allowed", param="lora"
        )
    for index, entry in enumerate(given):
        if not 0 <= entry.id < _MAX_ADAPTERS:
            raise InvalidRequestError(
                f"lora[{index}].id is {entry.id}; adapters are numbered from 0", param="lora"
            )
    return tuple((entry.id, entry.scale) for entry in given)
