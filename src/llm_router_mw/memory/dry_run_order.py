"""What a dry run is asked, and what it answers: a line of JSON each."""

from __future__ import annotations

from msgspec import Struct

from llm_router_mw.types import Failure, LoadOptions, MeasuredMemory, Placement


class DryRunOrder(Struct, frozen=True, kw_only=True):
    """Router → child: what would this take?"""

    path: str
    options: LoadOptions
    placement: Placement | None = None
    """None leaves it to the options, on all devices that there are."""


class DryRunAnswer(Struct, frozen=True, kw_only=True):
    """Child → router: what it takes, or why that is not known."""

    memory: MeasuredMemory | None = None
    failure: Failure | None = None
