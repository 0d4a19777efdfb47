"""What the host says of the models, for whoever asks in the web process."""

from __future__ import annotations

from collections.abc import Iterable

from llm_router_mw.types import ModelView, RouterView


class Mirror:
    """The models and the router as they were last heard of. Read from any thread, at once."""

    def __init__(self, overview: RouterView) -> None:
        """Begin with no models and with *overview*, which holds until a host has spoken."""
        self._models: dict[str, ModelView] = {}
        self._overview = overview

    @property
    def models(self) -> tuple[ModelView, ...]:
        """All models, in the host's order."""
        return tuple(self._models.values())

    @property
    def overview(self) -> RouterView:
        """The router as a whole."""
        return self._overview

    def begin(self, models: Iterable[ModelView], overview: RouterView) -> None:
        """A host has said all there is; what an earlier one said is over."""
        self._models = {view.id: view for view in models}
        self._overview = overview

    def change(self, models: Iterable[ModelView], overview: RouterView | None = None) -> None:
        """These are as said here; the others are as they were."""
        # A new dict: another thread may be reading the old one.
        self._models = {**self._models, **{view.id: view for view in models}}
        if overview is not None:
            self._overview = overview

    def lose(self) -> None:
        """The host is gone, and all that was loaded with it."""
        self._models = {
            name: ModelView(model=view.model, pinned=view.pinned)
            for name, view in self._models.items()
        }
        self._overview = RouterView(
            models_max=self._overview.models_max, models_autoload=self._overview.models_autoload
        )
