"""A vocabulary is read beside the weights, and only once: a model that wakes still has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, GGUFWriter

from llm_router_mw.engine import weights as weights_module
from llm_router_mw.engine.kept_vocab import KeptVocab, Pretence, keep_vocab, pretence_for
from llm_router_mw.engine.model import load_model
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.types import ChatTask, EmbedTask, LoraAdapter, RerankTask
from tests.engine.conftest import Load
from tests.engine.driver import GREEDY, Driver, prompt
from tests.support.tiny_architectures import ARCHITECTURES, write_tiny
from tests.support.tiny_models import write_tiny_llama
from tests.support.tiny_vocabulary import make_vocabulary

CHAT = ChatTask(messages=({"role": "user", "content": "the fox"},), max_tokens=9, sampling=GREEDY)


def sleep(driver: Driver) -> None:
    driver.engine.retire()
    driver.engine.sleep("full")


def kept(driver: Driver) -> KeptVocab | None:
    order = driver.engine._order
    assert order is not None
    return order.weights.kept


def used(driver: Driver) -> bool:
    """Tell whether the model works with what was kept."""
    vocab, model = kept(driver), driver.engine._model
    assert model is not None
    return vocab is not None and model.vocab is vocab.vocab


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kind_of_model_answers_as_before(
    load: Load,
    tmp_path: Path,
    architecture: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_tiny(tmp_path / "model.gguf", architecture)
    with monkeypatch.context() as patch:
        patch.setattr(weights_module, "pretence_for", lambda path: None)
        whole = load(path)
    assert not used(whole)
    before = whole.answer(prompt(max_tokens=20)), whole.answer(CHAT)
    driver = load(path)
    assert used(driver)
    assert (driver.answer(prompt(max_tokens=20)), driver.answer(CHAT)) == before
    for _ in range(2):
        sleep(driver)
        info = driver.engine.wake()
        assert used(driver)
        assert (driver.answer(prompt(max_tokens=20)), driver.answer(CHAT)) == before
        assert info.n_vocab == driver.info.n_vocab == whole.info.n_vocab
        assert info.n_params == driver.info.n_params == whole.info.n_params
    assert "dummy" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["encoder", "endless"])
def test_it_embeds_as_before(load: Load, request: pytest.FixtureRequest, kind: str) -> None:
    driver = load(request.getfixturevalue(kind), pooling="mean")

    def vectors() -> Any:
        asked = driver.submit(EmbedTask(inputs=("the fox", "a dog and a fox")))
        driver.run()
        return driver.vectors(asked)

    before = vectors()
    sleep(driver)
    driver.engine.wake()
    assert used(driver)
    assert vectors() == before


def test_it_ranks_as_before(load: Load, tmp_path: Path) -> None:
    model = write_tiny(tmp_path / "ranker.gguf", "qwen3", rank_template="{query} {document}")
    driver = load(model, pooling="rank")

    def scores() -> Any:
        asked = driver.submit(RerankTask(query="fox", documents=("the fox", "a dog")))
        driver.run()
        return driver.deltas[asked][:-1]

    before = scores()
    sleep(driver)
    driver.engine.wake()
    assert used(driver)
    assert scores() == before


def test_it_is_read_once(load: Load, endless: Path) -> None:
    driver = load(endless)
    before = kept(driver)
    assert before is not None
    for level in ("context", "full"):
        driver.engine.retire()
        driver.engine.sleep(level)
        driver.engine.wake()
        assert kept(driver) is before
        assert driver.answer(prompt(max_tokens=3))


def test_one_that_cannot_be_read_apart_comes_with_the_weights(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(endless).answer(prompt(max_tokens=5))

    def fail(path: str, pretence: Pretence) -> KeptVocab:
        raise ValueError("no")

    monkeypatch.setattr("llm_router_mw.engine.kept_vocab.KeptVocab", fail)
    driver = load(endless)
    assert kept(driver) is None
    assert driver.answer(prompt(max_tokens=5)) == before


def test_another_file_in_its_place_has_a_vocabulary_of_its_own(load: Load, tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "model.gguf", says=("Hello", "!"))
    driver = load(path)
    sleep(driver)
    before = kept(driver)
    other = write_tiny_llama(tmp_path / "other.gguf", says=("Bye", "!"), n_vocab=700)
    os.replace(other, path)
    info = driver.engine.wake()
    assert kept(driver) is not before
    assert info.n_vocab == 700
    assert driver.answer(prompt()) == "Bye!"
    sleep(driver)
    driver.engine.wake()
    assert used(driver)
    assert driver.answer(prompt()) == "Bye!"


def test_a_file_that_is_gone_cannot_be_kept_and_the_wake_says_so(
    load: Load, tmp_path: Path
) -> None:
    path = write_tiny_llama(tmp_path / "model.gguf")
    driver = load(path)
    hidden = path.rename(path.with_suffix(".hidden"))
    sleep(driver)
    with pytest.raises(Exception, match="does not exist"):
        driver.engine.wake()
    hidden.rename(path)
    driver.engine.wake()
    assert driver.answer(prompt(max_tokens=3))


def test_a_model_that_cannot_be_loaded_without_it_is_loaded_with_it(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(endless)
    before = driver.answer(prompt(max_tokens=5))
    sleep(driver)
    install = Pretence.install

    def spoil(pretence: Pretence, parameters: Any) -> None:
        install(pretence, parameters)
        parameters.kv_overrides[1].value.val_i64 += 1

    monkeypatch.setattr(Pretence, "install", spoil)
    driver.engine.wake()
    assert kept(driver) is None
    assert driver.answer(prompt(max_tokens=5)) == before


def test_lack_of_memory_is_no_reason_to_try_again(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(endless)
    sleep(driver)
    calls: list[object] = []

    def fail(*arguments: object) -> object:
        calls.append(arguments)
        raise ModelLoadError("no room", out_of_memory=True)

    monkeypatch.setattr(weights_module, "load_model", fail)
    with pytest.raises(ModelLoadError, match="no room"):
        driver.engine.wake()
    assert len(calls) == 1


def test_an_adapter_that_does_not_fit_is_no_reason_to_try_again(
    load: Load, endless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return load_model(*arguments)

    monkeypatch.setattr(weights_module, "load_model", counted)
    (tmp_path / "no.gguf").write_text("no adapter")
    adapter = LoraAdapter(path=str(tmp_path / "no.gguf"))
    with pytest.raises(ModelLoadError, match="could not load the LoRA adapter"):
        load(endless, lora=(adapter,))
    assert len(calls) == 1


def test_a_file_that_says_another_number_of_tokens_is_left_alone(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "model.gguf")
    found = keep_vocab(str(path))
    assert found is not None
    found.close()
    reader = GGUFReader(path, "r+")
    reader.fields["llama.vocab_size"].parts[-1][0] += 1
    reader.data.flush()
    assert pretence_for(str(path)) is None
    assert keep_vocab(str(path)) is None


def test_an_architecture_that_llama_cpp_cannot_be_told_of_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "long" * 30)
    make_vocabulary().write_to(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert pretence_for(str(path)) is None


def test_one_of_another_length_than_its_header_says_is_freed(endless: Path) -> None:
    pretence = pretence_for(str(endless))
    assert pretence is not None
    with pytest.raises(ValueError, match="another number of tokens"):
        KeptVocab(str(endless), pretence._replace(n_tokens=1))


def test_what_is_no_model_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    assert keep_vocab(str(tmp_path / "text.gguf")) is None
