"""LoRA adapters: loaded with the model, weighted as asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_router_mw.engine.lora import Adapters
from llm_router_mw.errors import InvalidRequestError, ModelFileError, ModelLoadError, error_from
from llm_router_mw.types import EmbedTask, LoraAdapter
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.support.tiny_architectures import write_tiny
from tests.support.tiny_lora import write_tiny_lora
from tests.support.tiny_models import write_tiny_llama

N = 6
Scales = tuple[tuple[int, float], ...]


@pytest.fixture(scope="session")
def the(folder: Path) -> LoraAdapter:
    """With it the tiny model says "the" only."""
    return LoraAdapter(path=str(write_tiny_lora(folder / "the.gguf", "the")))


@pytest.fixture(scope="session")
def you(folder: Path) -> LoraAdapter:
    return LoraAdapter(path=str(write_tiny_lora(folder / "you.gguf", "you")))


def scaled(adapter: LoraAdapter, scale: float) -> LoraAdapter:
    return LoraAdapter(path=adapter.path, scale=scale)


def answer(driver: Driver, lora: Scales | None = None) -> str:
    return driver.answer(prompt(max_tokens=N, lora=lora))


def test_an_adapter_changes_what_is_said(load: Load, endless: Path, the: LoraAdapter) -> None:
    plain = answer(load(endless))
    assert answer(load(endless, lora=(the,))) == "the" * N != plain


def test_an_adapter_of_scale_0_changes_nothing(load: Load, endless: Path, the: LoraAdapter) -> None:
    assert answer(load(endless, lora=(scaled(the, 0),))) == answer(load(endless))


def test_several_adapters_are_added_up(
    load: Load, endless: Path, the: LoraAdapter, you: LoraAdapter
) -> None:
    assert answer(load(endless, lora=(the, scaled(you, 2)))) == "you" * N
    assert answer(load(endless, lora=(scaled(the, 2), you))) == "the" * N


def test_equal_scales_are_not_set_again(
    load: Load, endless: Path, the: LoraAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(endless, lora=(the,))
    context = driver.engine._context
    assert context is not None
    applied: list[tuple[float, ...]] = []
    monkeypatch.setattr(Adapters, "apply", lambda self, pointer, scales: applied.append(scales))
    for scale in (1.0, 0.5, 0.5, 1.0):
        context.set_adapters((scale,))
    assert applied == [(0.5,), (1.0,)]


@pytest.fixture(scope="session")
def base(folder: Path) -> Path:
    return write_tiny(folder / "lora_base.gguf", "qwen3")


@pytest.fixture(scope="session")
def adapter(folder: Path) -> LoraAdapter:
    path = folder / "lora_of_qwen3.gguf"
    write_tiny_lora(path, "the", architecture="qwen3", target="blk.0.attn_q")
    return LoraAdapter(path=str(path))


class TestRequests:
    """Requests with other scales than those that were loaded."""

    def test_a_request_chooses_its_adapter(
        self, load: Load, endless: Path, the: LoraAdapter, you: LoraAdapter
    ) -> None:
        plain = answer(load(endless))
        driver = load(endless, lora=(the, scaled(you, 0)))
        assert answer(driver) == "the" * N
        assert answer(driver, lora=((1, 1.0),)) == "you" * N
        assert answer(driver, lora=((0, 0.0),)) == plain
        assert answer(driver, lora=()) == plain
        assert answer(driver) == "the" * N

    def test_requests_of_other_adapters_take_turns(
        self, load: Load, endless: Path, the: LoraAdapter, you: LoraAdapter
    ) -> None:
        driver = load(endless, lora=(the, you))
        wishes: list[Scales] = [((0, 1.0),), ((1, 1.0),), ((0, 1.0),), ((1, 1.0),)]
        tasks = [prompt((300 + i,), max_tokens=N, lora=wish) for i, wish in enumerate(wishes)]
        requests = [driver.submit(task) for task in tasks]
        driver.run()
        expected = ["the" * N, "you" * N] * 2
        assert [driver.text(request) for request in requests] == expected
        assert driver.rows == [2] * 2 * N

    def test_nobody_waits_for_ever(
        self, load: Load, endless: Path, the: LoraAdapter, you: LoraAdapter
    ) -> None:
        driver = load(endless, lora=(the, you))
        long = driver.submit(prompt((300,), max_tokens=200, lora=((0, 1.0),)))
        driver.step()
        short = driver.submit(prompt((301,), max_tokens=N, lora=((1, 1.0),)))
        driver.until(lambda: driver.over(short))
        assert len(driver.rows) <= 2 * N + 2
        assert not driver.over(long)

    def test_tokens_computed_with_another_adapter_are_not_taken_over(
        self, load: Load, base: Path, adapter: LoraAdapter
    ) -> None:
        given = tuple(range(261, 301))
        driver = load(base, lora=(adapter,))
        plain, changed = prompt(given, max_tokens=9, lora=()), prompt(given, max_tokens=9)
        fresh = [load(base, lora=(adapter,)).answer(task) for task in (plain, changed)]
        assert fresh[0] != fresh[1]
        for _ in range(2):
            assert [driver.answer(task) for task in (plain, changed)] == fresh

    def test_tokens_computed_with_the_same_adapter_are(
        self, load: Load, base: Path, adapter: LoraAdapter
    ) -> None:
        driver = load(base, lora=(adapter,))
        task = prompt(tuple(range(261, 301)), max_tokens=9, lora=((0, 0.5),))
        driver.answer(task)
        request = driver.submit(task)
        driver.run()
        assert driver.finish(request).usage.cached_tokens == 39

    def test_an_adapter_that_is_not_there_is_named(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        request = driver.submit(prompt(lora=((0, 1.0),)))
        driver.run()
        error = error_from(driver.failure(request))
        assert isinstance(error, InvalidRequestError)
        assert error.param == "lora"


class TestVectors:
    """An embedding instance, whose loop leaves the scales alone."""

    def vector(self, driver: Driver) -> bytes:
        request = driver.submit(EmbedTask(inputs=("the fox is in it",)))
        driver.run()
        [delta] = driver.vectors(request)
        return delta.vector

    def test_an_adapter_changes_them(self, load: Load, base: Path, adapter: LoraAdapter) -> None:
        plain = self.vector(load(base, pooling="mean"))
        assert self.vector(load(base, pooling="mean", lora=(adapter,))) != plain

    def test_a_context_works_with_the_scales_that_it_is_given(
        self, load: Load, base: Path, adapter: LoraAdapter
    ) -> None:
        driver = load(base, pooling="mean", lora=(adapter,))
        context = driver.engine._context
        assert context is not None
        for scale in (0.0, 0.5, 1.0, 0.0):
            fresh = load(base, pooling="mean", lora=(scaled(adapter, scale),))
            context.set_adapters((scale,))
            assert self.vector(driver) == self.vector(fresh)


class TestScales:
    """What a request may ask for."""

    @pytest.fixture
    def adapters(self, load: Load, endless: Path, the: LoraAdapter, you: LoraAdapter) -> Adapters:
        driver = load(endless, lora=(scaled(the, 0.5), you))
        assert driver.engine._model is not None
        return driver.engine._model.adapters

    def test_without_a_wish_they_are_as_loaded(self, adapters: Adapters) -> None:
        assert adapters.scales(None) == (0.5, 1.0)

    def test_those_that_are_not_named_are_off(self, adapters: Adapters) -> None:
        assert adapters.scales(()) == (0.0, 0.0)
        assert adapters.scales([(1, -2.0)]) == (0.0, -2.0)
        assert adapters.scales([(1, 2.0), (0, 3.0)]) == (3.0, 2.0)

    @pytest.mark.parametrize(
        "wanted", [[(2, 1.0)], [(-1, 1.0)], [(0, float("nan"))], [(0, float("inf"))]]
    )
    def test_what_is_not_there_or_no_number_is_refused(
        self, adapters: Adapters, wanted: list[tuple[int, float]]
    ) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            adapters.scales(wanted)
        assert caught.value.param == "lora"


class TestLoading:
    """Files that are no adapters for the model."""

    def failure(self, load: Load, model: Path, path: Path) -> str:
        with pytest.raises(ModelLoadError) as caught:
            load(model, lora=(LoraAdapter(path=str(path)),))
        assert str(path.parent) not in caught.value.message
        assert repr(path.name) in caught.value.message
        return caught.value.message

    def test_a_missing_file(self, load: Load, endless: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match=r"'gone\.gguf' does not exist") as caught:
            load(endless, lora=(LoraAdapter(path=str(tmp_path / "gone.gguf")),))
        assert str(tmp_path) not in caught.value.message

    def test_an_unreadable_file(
        self, load: Load, endless: Path, the: LoraAdapter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Root may read everything, so permissions alone would not do.
        monkeypatch.setattr(os, "access", lambda path, mode: path != the.path)
        with pytest.raises(ModelFileError, match=r"'the\.gguf' cannot be read"):
            load(endless, lora=(the,))

    def test_no_gguf(self, load: Load, endless: Path, tmp_path: Path) -> None:
        path = tmp_path / "text.gguf"
        path.write_text("once upon a time")
        assert "could not load" in self.failure(load, endless, path)

    def test_a_model(self, load: Load, endless: Path, tmp_path: Path) -> None:
        path = write_tiny_lora(tmp_path / "model.gguf", "the", kind="model")
        assert "general.type" in self.failure(load, endless, path)

    def test_one_for_another_architecture(self, load: Load, endless: Path, tmp_path: Path) -> None:
        path = write_tiny_lora(tmp_path / "gemma.gguf", "the", architecture="gemma3")
        assert "arch mismatch" in self.failure(load, endless, path)

    def test_one_for_a_larger_model(self, load: Load, endless: Path, tmp_path: Path) -> None:
        path = write_tiny_lora(tmp_path / "larger.gguf", "the", n_embd=128)
        assert "incorrect shape" in self.failure(load, endless, path)

    def test_half_of_one(self, load: Load, endless: Path, the: LoraAdapter, tmp_path: Path) -> None:
        path = tmp_path / "half.gguf"
        whole = Path(the.path).read_bytes()
        path.write_bytes(whole[:-1000])
        assert "could not load" in self.failure(load, endless, path)

    def test_one_that_tokens_switch_on(self, load: Load, endless: Path, tmp_path: Path) -> None:
        path = write_tiny_lora(tmp_path / "switched.gguf", "the", switched_by=(300, 301))
        assert "aLoRA" in self.failure(load, endless, path)

    def test_the_next_load_is_not_disturbed(
        self, load: Load, folder: Path, the: LoraAdapter, tmp_path: Path
    ) -> None:
        model = write_tiny_llama(folder / "again.gguf")
        self.failure(load, model, write_tiny_lora(tmp_path / "x.gguf", "the", n_embd=128))
        assert answer(load(model, lora=(the,))) == "the" * N
