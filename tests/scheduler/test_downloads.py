"""Models whose files have yet to be downloaded: when that begins, what it takes, how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, key

DOWNLOADING, UNLOADED = InstanceState.DOWNLOADING, InstanceState.UNLOADED


def remote(*names: str, **limits: Any) -> World:
    """Return a world in which the files of *names* have yet to be downloaded."""
    world = World(**limits)
    world.missing.update(names)
    return world


def test_files_are_fetched_before_a_load_begins() -> None:
    world = remote("a")
    request = world.ask("a")
    assert world.did == ["download a"]
    assert world.state("a") is DOWNLOADING
    assert world.downloaded("a") == ["start a"]
    assert world.loaded("a") == [f"grant {request}"]


def test_requests_for_one_model_cause_one_download() -> None:
    world = remote("a")
    first, second = world.ask("a"), world.ask("a")
    world.downloaded("a")
    assert world.loaded("a") == [f"grant {first}", f"grant {second}"]
    assert world.did.count("download a") == 1


def test_what_it_needs_is_asked_again_of_the_files_themselves() -> None:
    world = remote("a", models_max=0)
    world.memory(gpu=100)
    world.sizes(a=50)
    world.ask("a")
    world.sizes(a=60)
    world.downloaded("a")
    started = world.started["a"]
    assert started is not None
    assert started.bytes_by_pool == {"gpu": 60}


def test_what_never_fits_is_refused_and_not_fetched() -> None:
    world = remote("a", models_max=0)
    world.memory(gpu=100)
    world.sizes(a=150)
    for _ in range(2):
        request = world.ask("a")
        assert world.rejected[request].kind == "ModelTooLargeError"
    assert "download a" not in world.did
    assert world.state("a") is UNLOADED


def test_a_download_takes_no_room_from_others() -> None:
    world = remote("a", models_max=1)
    world.memory(gpu=100)
    world.sizes(a=80, b=80)
    world.ask("a")
    assert world.scheduler.ledger.charge_of(key("a")) == {}
    other = world.serve("b")
    world.tick(20)
    assert world.state("a") is DOWNLOADING
    assert world.downloaded("a") == []
    assert world.release(other) == ["stop b"]
    assert world.exited("b") == ["start a"]


def test_nobody_drains_for_what_is_not_here_yet() -> None:
    world = remote("a", max_wait_seconds=5)
    world.serve("b")
    world.ask("a")
    world.tick(100)
    assert world.state("b") is InstanceState.LOADED
    world.downloaded("a")
    assert world.state("b") is InstanceState.DRAINING


def test_who_wants_two_models_waits_for_the_files_of_both() -> None:
    world = remote("a", "b", models_max=2)
    request = world.ask("a", "b")
    assert world.did == ["download a", "download b"]
    assert world.downloaded("a") == []
    assert world.downloaded("b") == ["start a", "start b"]
    world.loaded("a")
    assert world.loaded("b") == [f"grant {request}"]


def test_it_goes_on_when_those_who_wait_have_left() -> None:
    world = remote("a")
    world.cancel(world.ask("a"))
    assert world.state("a") is DOWNLOADING
    assert world.downloaded("a") == []
    assert world.state("a") is UNLOADED
    world.ask("a")
    assert world.did == ["download a", "start a"]


def test_who_comes_later_joins_a_download_that_nobody_waited_for() -> None:
    world = remote("a")
    world.cancel(world.ask("a"))
    world.ask("a")
    assert world.downloaded("a") == ["start a"]


def test_nobody_knows_how_long_it_takes() -> None:
    world = remote("a")
    request = world.ask("a")
    place = world.scheduler.queue_place(request)
    assert place is not None
    assert place.expected_wait_seconds is None
    world.downloaded("a")
    place = world.scheduler.queue_place(request)
    assert place is not None
    assert place.expected_wait_seconds is not None


def test_who_has_waited_for_too_long_is_told_that_it_goes_on() -> None:
    world = remote("a", queue_timeout_seconds=60)
    request = world.ask("a")
    world.tick(60)
    refusal = world.rejected[request]
    assert refusal.kind == "QueueTimeoutError"
    assert "could not be downloaded within 60 s; the download goes on" in refusal.message
    assert world.state("a") is DOWNLOADING


def test_files_that_somebody_else_has_fetched_meanwhile_are_waited_for_all_the_same() -> None:
    world = remote("a")
    world.ask("a")
    world.missing.clear()
    assert world.priced("a", ()) == []
    assert world.downloaded("a") == ["start a"]


def test_files_that_are_gone_are_fetched_again() -> None:
    world = World()
    world.idle("a")
    world.unload("a")
    world.exited("a")
    world.missing.add("a")
    world.priced("a", ())
    world.did.clear()
    world.ask("a")
    assert world.did == ["download a"]


def test_a_sleeper_wakes_whatever_became_of_its_files() -> None:
    world = World()
    world.asleep("a")
    world.missing.add("a")
    world.priced("a", ())
    world.did.clear()
    world.ask("a")
    assert world.did == ["wake a"]


# Failures


def test_a_failed_download_is_told_to_all_and_cools_down_longer_each_time() -> None:
    world = remote("a")
    pauses = []
    for _ in range(3):
        first, second = world.ask("a"), world.ask("a")
        assert world.download_failed("a") == [
            f"reject {first}: DownloadError",
            f"reject {second}: DownloadError",
        ]
        assert world.state("a") is InstanceState.FAILED
        assert world.instance("a").failure is not None
        refused = world.rejected[world.ask("a")]
        assert refused.kind == "ModelCoolingDownError"
        assert "the hub is gone" in refused.message
        pauses.append(refused.fields["retry_after_seconds"])
        world.now += pauses[-1]
    assert pauses == [10, 20, 40]
    world.ask("a")
    world.downloaded("a")
    assert world.instance("a").failure is None


def test_a_failure_is_announced_as_one() -> None:
    world = remote("a")
    world.ask("a")
    world.download_failed("a")
    assert world.reasons("a", "load_failed") == ["the hub is gone"]


# By hand


@pytest.mark.parametrize("force", [False, True])
def test_unloading_stops_it_and_the_next_request_goes_on(force: bool) -> None:
    world = remote("a")
    request = world.ask("a")
    assert world.unload("a", force=force) == [
        "cancel download a",
        f"reject {request}: ModelUnloadedError",
    ]
    assert world.state("a") is UNLOADED
    world.ask("a")
    assert world.did[-1] == "download a"


def test_it_goes_on_for_another_model_of_the_same_files() -> None:
    world = remote("a")
    request = world.ask_shared(("alias", "a"))
    assert world.unload("a") == []
    assert world.state("a") is DOWNLOADING
    assert world.unload("a", model="alias") == [
        "cancel download a",
        f"reject {request}: ModelUnloadedError",
    ]


def test_news_of_one_that_was_stopped_means_nothing() -> None:
    world = remote("a")
    world.ask("a")
    old = world.generation("a")
    world.unload("a")
    failure = events.DownloadFailed(instance=key("a"), generation=old, failure=world.rejected[1])
    assert world.send(failure) == []
    world.ask("a")
    assert world.send(events.Downloaded(instance=key("a"), generation=old)) == []
    assert world.send(failure) == []
    assert world.state("a") is DOWNLOADING


def test_a_model_that_may_not_be_loaded_is_not_fetched() -> None:
    world = remote("a")
    request = world.ask("a", autoload=False)
    assert world.rejected[request].kind == "ModelNotLoadedError"
    assert world.did == [f"reject {request}: ModelNotLoadedError"]


def test_nothing_is_fetched_on_a_guess() -> None:
    world = remote("a")
    world.predict("a")
    world.predict("a")
    assert world.did == []


def test_the_end_of_the_router_stops_it() -> None:
    world = remote("a")
    request = world.ask("a")
    assert world.send(events.Shutdown()) == [
        f"reject {request}: RouterNotRunningError",
        "cancel download a",
    ]
    assert world.priced("a", ()) == []
