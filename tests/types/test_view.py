"""What monitoring sees of a model."""

from __future__ import annotations

from llm_router_mw.types import InstanceState, Model, ModelView

MODEL = Model(id="a", path="/models/a.gguf", source="config")


def test_a_view_goes_by_its_models_id_and_the_clients_state() -> None:
    view = ModelView(model=MODEL, state=InstanceState.DRAINING)
    assert view.id == "a"
    assert view.status == "loaded"


def test_a_model_that_nobody_asked_for_is_unloaded() -> None:
    assert ModelView(model=MODEL).status == "unloaded"
