"""The placement policy that was chosen, and who stands in where it fails."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.errors import LLMRouterError, ModelLoadError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import PlacementPolicy
from llm_router_mw.types import Device, Model, Placement


class Placing:
    """A placement policy whose failures cost no load: another one decides then."""

    def __init__(self, policy: PlacementPolicy, stand_in: PlacementPolicy, faults: Faults) -> None:
        """Ask *policy*; if it fails, *faults* is told, and *stand_in* asked."""
        self.name = policy.name
        self._policy = policy
        self._stand_in = stand_in
        self._faults = faults

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        """Return where *model* may go, best first: one place at least. May read files.

        Raises:
            ModelLoadError: there is none.
            LLMRouterError: the policy refuses the model for another reason.
        """
        try:
            found = list(self._policy.place(model, devices))
            if not all(isinstance(each, Placement) for each in found):
                raise TypeError(f"it proposed {found!r}; only a Placement is a place")
        except LLMRouterError:
            raise
        except Exception as error:
            self._faults.add("placement policy", self.name, error)
            found = list(self._stand_in.place(model, devices))
        if not found:
            raise ModelLoadError(
                f"the placement policy {self.name!r} finds no place for {model.id!r} on the "
                "devices that there are; 'llm-router-mw devices' lists them"
            )
        return found
