"""Embeddings: one vector per input, packed into shared batches."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from llm_router_mw.errors import (
    InvalidRequestError,
    LLMRouterError,
    NotSupportedError,
    error_from,
)
from llm_router_mw.types import ChatTask, EmbedTask
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.support.tiny_models import write_tiny_bert

TEXTS = ("the fox", "it is in the", "a", "and to you of the ing", "on 123")


def embed(driver: Driver, *inputs: str | tuple[int, ...]) -> list[tuple[float, ...]]:
    """Return the vectors of *inputs*."""
    request = driver.submit(EmbedTask(inputs=inputs))
    driver.run()
    assert driver.finish(request).reason == "stop"
    deltas = driver.vectors(request)
    assert [delta.index for delta in deltas] == list(range(len(inputs)))
    return [struct.unpack(f"<{driver.info.n_embd}f", delta.vector) for delta in deltas]


def refusal(driver: Driver, *inputs: str | tuple[int, ...]) -> LLMRouterError:
    """Return the error that *inputs* end with."""
    request = driver.submit(EmbedTask(inputs=inputs))
    driver.run()
    return error_from(driver.failure(request))


@pytest.fixture(params=["encoder", "endless"])
def driver(request: pytest.FixtureRequest, load: Load) -> Driver:
    """An embedding instance over an encoder, and one over a model that could generate."""
    return load(request.getfixturevalue(request.param), pooling="mean")


def test_vectors_have_length_one_and_differ(driver: Driver) -> None:
    vectors = embed(driver, *TEXTS)
    for vector in vectors:
        assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-5)
    assert len(set(vectors)) == len(TEXTS)


def test_packing_does_not_change_them(driver: Driver) -> None:
    together = embed(driver, *TEXTS)
    assert len(driver.rows) == 2, "four sequences, then one"
    for text, vector in zip(TEXTS, together, strict=True):
        assert embed(driver, text)[0] == pytest.approx(vector, abs=1e-5)


def test_requests_share_a_batch(driver: Driver) -> None:
    requests = [driver.submit(EmbedTask(inputs=TEXTS[:2])) for _ in range(2)]
    driver.run()
    assert len(driver.rows) == 1
    assert all(driver.finish(request).reason == "stop" for request in requests)


def test_batches_hold_no_more_rows_than_asked(load: Load, encoder: Path) -> None:
    driver = load(encoder, pooling="mean", n_batch=16)
    together = embed(driver, *["a b c d"] * 4)
    # Four letters and two special tokens each: two inputs fit into 16 rows.
    assert driver.rows == [12, 12]
    assert together[0] == pytest.approx(together[3], abs=1e-6)


def test_usage_counts_the_prompts(driver: Driver) -> None:
    request = driver.submit(EmbedTask(inputs=((300, 301), (60, 61, 62))[1:]))
    driver.run()
    usage = driver.finish(request).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 0)
    assert driver.finish(request).timings.prompt_seconds > 0


def test_pooling_is_obeyed(load: Load, encoder: Path) -> None:
    by_pooling = [embed(load(encoder, pooling=name), "a b c")[0] for name in ("mean", "cls")]
    assert by_pooling[0] != pytest.approx(by_pooling[1], abs=1e-3)


def test_dimensions_cut_vectors_short_and_normalise_them_again(driver: Driver) -> None:
    whole = embed(driver, *TEXTS)
    request = driver.submit(EmbedTask(inputs=TEXTS, dimensions=5))
    driver.run()
    for full, delta in zip(whole, driver.vectors(request), strict=True):
        vector = struct.unpack("<5f", delta.vector)
        assert math.isclose(math.hypot(*vector), 1, rel_tol=1e-5)
        length = math.hypot(*full[:5])
        assert vector == pytest.approx([value / length for value in full[:5]], abs=1e-5)


@pytest.mark.parametrize("beyond", [-5, 0, 1])
def test_dimensions_that_the_model_lacks_are_refused(driver: Driver, beyond: int) -> None:
    wanted = driver.info.n_embd + 1 if beyond == 1 else beyond
    request = driver.submit(EmbedTask(inputs=TEXTS, dimensions=wanted))
    driver.run()
    error = error_from(driver.failure(request))
    assert isinstance(error, InvalidRequestError)
    assert error.param == "dimensions"
    assert f"vectors have 1 to {driver.info.n_embd}" in error.message


def test_vectors_wait_for_credit(driver: Driver) -> None:
    request = driver.submit(EmbedTask(inputs=TEXTS), credit=2)
    other = driver.submit(EmbedTask(inputs=TEXTS[:1]))
    driver.run()
    assert len(driver.vectors(request)) == 2
    assert driver.over(other)
    driver.engine.credit(request, 10)
    driver.run()
    assert [delta.index for delta in driver.vectors(request)] == [0, 1, 2, 3, 4]


def test_cancel_ends_a_request(driver: Driver) -> None:
    request = driver.submit(EmbedTask(inputs=TEXTS))
    other = driver.submit(EmbedTask(inputs=TEXTS))
    driver.step()
    driver.engine.cancel(request)
    driver.run()
    assert driver.finish(request).reason == "cancelled"
    assert len(driver.vectors(request)) == 4
    assert len(driver.vectors(other)) == 5


def test_the_longest_input_fits_exactly(load: Load, encoder: Path) -> None:
    driver = load(encoder, pooling="mean", n_batch=512)
    embed(driver, (60,) * 300)
    assert driver.rows == [300]


@pytest.mark.parametrize(("n_batch", "most"), [(32, 32), (512, 300)])
def test_a_longer_input_is_refused(load: Load, encoder: Path, n_batch: int, most: int) -> None:
    # 300 positions are all that the encoder knows; more would read beyond their table.
    error = refusal(load(encoder, pooling="mean", n_batch=n_batch), "a", (60,) * (most + 1))
    assert isinstance(error, InvalidRequestError)
    assert error.param == "input"
    assert f"input 1 has {most + 1} tokens, and this model takes {most} at once" in error.message


@pytest.mark.parametrize("inputs", [(), ("a", ""), ((),), ("\ud800",), ((10**6,),)])
def test_inputs_that_cannot_be_embedded_are_refused(
    driver: Driver, inputs: tuple[str | tuple[int, ...], ...]
) -> None:
    error = refusal(driver, *inputs)
    assert isinstance(error, InvalidRequestError)
    assert error.param == "input"


def test_pooling_none_is_refused_as_llama_server_does(load: Load, encoder: Path) -> None:
    error = refusal(load(encoder, pooling="none"), "a")
    assert isinstance(error, InvalidRequestError)
    assert "Pooling type 'none' is not OAI compatible" in error.message


@pytest.mark.parametrize("task", [prompt(), ChatTask(messages=({"role": "user"},))])
def test_generating_is_refused(driver: Driver, task: ChatTask) -> None:
    request = driver.submit(task)
    driver.run()
    error = error_from(driver.failure(request))
    assert isinstance(error, NotSupportedError)
    assert "pooling" in error.message


def test_rank_gives_scores_as_they_are(load: Load, folder: Path) -> None:
    driver = load(write_tiny_bert(folder / "ranker.gguf", ranks=True), pooling="rank")
    request = driver.submit(EmbedTask(inputs=TEXTS))
    driver.run()
    scores = [struct.unpack("<f", delta.vector)[0] for delta in driver.vectors(request)]
    assert len(scores) == len(set(scores)) == len(TEXTS)
    assert not any(math.isclose(abs(score), 1) for score in scores)


def test_a_model_with_an_encoder_of_its_own_encodes(
    load: Load, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = embed(load(encoder, pooling="mean"), *TEXTS)
    monkeypatch.setattr("llama_cpp.llama_cpp.llama_model_has_encoder", lambda model: True)
    monkeypatch.delattr("llama_cpp.llama_cpp.llama_decode")
    assert embed(load(encoder, pooling="mean"), *TEXTS) == expected


def test_a_failed_batch_ends_its_requests_only(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = driver.submit(EmbedTask(inputs=TEXTS))
    with monkeypatch.context() as patch:
        patch.setattr("llm_router_mw.engine.context.Context.compute", lambda self: -3)
        driver.step()
    assert "code -3" in driver.failure(failing).message
    assert embed(driver, *TEXTS)


def test_closing_forgets_requests(driver: Driver) -> None:
    driver.submit(EmbedTask(inputs=TEXTS))
    driver.close()
