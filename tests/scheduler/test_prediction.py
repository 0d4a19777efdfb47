"""What is learned about who asks for what next."""

from __future__ import annotations

import pytest

from llm_router_mw.scheduler.prediction import NextModel


def taught(guess: NextModel, key: str, *models: str, times: int = 1) -> NextModel:
    for _ in range(times):
        for model in models:
            guess.observe(key, model)
    return guess


def test_what_always_followed_is_expected_to_follow() -> None:
    guess = taught(NextModel(), "alice", "embed", "chat", times=4)

    assert guess.next("alice", "embed") == "chat"
    assert guess.next("alice", "chat") == "embed"


def test_nothing_is_guessed_before_it_was_seen_often_enough() -> None:
    guess = taught(NextModel(seen=3), "alice", "embed", "chat", times=2)

    assert guess.next("alice", "embed") is None

    taught(guess, "alice", "embed", "chat")
    assert guess.next("alice", "embed") == "chat"


def test_each_key_has_habits_of_its_own() -> None:
    guess = taught(NextModel(), "alice", "embed", "chat", times=4)
    taught(guess, "bob", "embed", "code", times=4)

    assert guess.next("alice", "embed") == "chat"
    assert guess.next("bob", "embed") == "code"
    assert guess.next("carol", "embed") is None
    assert guess.next("alice", "code") is None


def test_asking_again_for_the_same_model_is_no_change() -> None:
    guess = taught(NextModel(), "alice", "embed", "chat", "chat", "chat", times=4)

    assert guess.next("alice", "chat") == "embed"


@pytest.mark.parametrize(("confidence", "expected"), [(0.6, "chat"), (0.8, None)])
def test_a_guess_needs_to_be_right_often_enough(confidence: float, expected: str | None) -> None:
    guess = NextModel(confidence=confidence)
    taught(guess, "alice", "embed", "chat", "embed", "chat", "embed", "chat", "embed", "code")

    assert guess.next("alice", "embed") == expected


def test_new_habits_replace_old_ones() -> None:
    guess = taught(NextModel(), "alice", "embed", "chat", times=500)

    taught(guess, "alice", "embed", "code", times=70)

    assert guess.next("alice", "embed") == "code"


def test_the_key_that_was_not_seen_for_longest_is_forgotten() -> None:
    guess = NextModel(max_keys=2)
    taught(guess, "alice", "embed", "chat", times=4)
    taught(guess, "bob", "embed", "chat", times=4)
    guess.observe("alice", "embed")

    guess.observe("carol", "embed")

    assert guess.next("bob", "embed") is None
    assert guess.next("alice", "embed") == "chat"


def test_the_model_that_was_not_left_for_longest_is_forgotten() -> None:
    guess = taught(NextModel(max_models=2), "alice", "a", "b", times=4)

    taught(guess, "alice", "c", "b", times=4)

    assert guess.next("alice", "a") is None
    assert guess.next("alice", "c") == "b"


def test_of_too_many_successors_the_rarest_is_forgotten() -> None:
    guess = taught(NextModel(max_successors=2), "alice", "a", "b", times=9)

    for rare in "cdefgh":
        taught(guess, "alice", "a", rare)

    assert guess.next("alice", "a") == "b"
