from __future__ import annotations

import pytest

from llm_router_mw.api.models import instance_body, models_body, status_body
from llm_router_mw.types import InstanceState
from tests.support.fake_router import INFO, view


def test_a_model_is_listed_in_llama_servers_shape() -> None:
    body = models_body((view("tiny"),), detailed=False)
    assert body["object"] == "list"
    (entry,) = body["data"]
    assert entry.pop("created") > 0
    assert entry == {
        "id": "tiny",
        "aliases": (),
        "tags": (),
        "object": "model",
        "owned_by": "llamacpp",
        "status": {"value": "unloaded"},
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "source": "fake",
        "can_remove": False,
    }


def test_a_loaded_model_has_facts() -> None:
    views = (view("tiny", state=InstanceState.LOADED, info=INFO),)
    (entry,) = models_body(views, detailed=False)["data"]
    assert entry["status"] == {"value": "loaded"}
    assert entry["meta"] == {
        "n_vocab": 256,
        "n_ctx": 512,
        "n_ctx_train": 1024,
        "n_embd": 2,
        "n_params": 1000,
        "size": 4000,
    }


@pytest.mark.parametrize(
    ("state", "value"),
    [
        (InstanceState.LOADING, "loading"),
        (InstanceState.DRAINING, "loaded"),
        (InstanceState.STOPPING, "loaded"),
    ],
)
def test_states_have_llama_servers_names(state: InstanceState, value: str) -> None:
    assert status_body(view("tiny", state=state), detailed=False)["value"] == value


def test_a_load_shows_how_far_it_is() -> None:
    status = status_body(view("tiny", state=InstanceState.LOADING, progress=0.5), detailed=False)
    assert status["progress"] == {
        "stages": ["text_model"],
        "current": "text_model",
        "value": 0.5,
    }


def test_a_download_shows_how_far_it_is() -> None:
    coming = view("tiny", state=InstanceState.DOWNLOADING, progress=0.5)
    assert status_body(coming, detailed=False) == {
        "value": "downloading",
        "progress": {"stages": ["download"], "current": "download", "value": 0.5},
    }


def test_why_and_where_are_for_the_management_only() -> None:
    failed = view("tiny", state=InstanceState.FAILED, error="/models/tiny.gguf is broken")
    (public,) = models_body((failed,), detailed=False)["data"]
    assert public["status"] == {"value": "unloaded", "failed": True}
    assert "/models" not in str(public)
    (detailed,) = models_body((failed,), detailed=True)["data"]
    assert detailed["status"]["error"] == "/models/tiny.gguf is broken"
    assert detailed["path"] == "/models/tiny.gguf"


def test_a_file_that_cannot_be_used_is_a_failure_before_any_load() -> None:
    assert status_body(view("tiny", error="truncated"), detailed=False)["failed"]


def test_how_an_instance_is_doing_is_for_the_management_only() -> None:
    busy = view(
        "tiny",
        state=InstanceState.SLEEPING,
        leases=1,
        waiting=2,
        position=3,
        expected_wait_seconds=4.5,
        memory={"host": 100},
        sleep_level="context",
        degraded=True,
        pinned=True,
    )
    (public,) = models_body((busy,), detailed=False)["data"]
    assert "instance" not in public
    (detailed,) = models_body((busy,), detailed=True)["data"]
    assert detailed["instance"] == {
        "state": "sleeping",
        "leases": 1,
        "waiting": 2,
        "memory": {"host": 100},
        "sleep_level": "context",
        "degraded": True,
        "pinned": True,
        "queue_position": 3,
        "expected_wait_seconds": 4.5,
    }


def test_an_instance_that_nobody_waits_for_has_no_place() -> None:
    assert instance_body(view("tiny")) == {
        "state": "unloaded",
        "leases": 0,
        "waiting": 0,
        "memory": {},
        "degraded": False,
        "pinned": False,
    }
