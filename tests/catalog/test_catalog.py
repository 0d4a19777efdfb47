"""The catalog finds the model that a name means, and says what is wrong with names and files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw.catalog import Catalog, catalog
from llm_router_mw.errors import (
    ConfigError,
    InvalidGGUFError,
    ModelFileError,
    ModelNotFoundError,
)
from llm_router_mw.faults import Faults
from llm_router_mw.gguf import GGUFHeader, read_headers
from llm_router_mw.testing.gguf import GGUFFile, Tensor, small_model
from llm_router_mw.types import Model


class ListSource:
    """A source of models that are given."""

    def __init__(self, *models: Model, name: str = "list") -> None:
        self.name = name
        self._models = models

    def models(self) -> Sequence[Model]:
        return self._models


def model(id: str, *aliases: str, path: str | None = None, source: str = "list") -> Model:
    return Model(id=id, path=path or f"/models/{id}.gguf", source=source, aliases=aliases)


def catalog_of(*models: Model) -> Catalog:
    return Catalog([ListSource(*models)])


def _raises() -> Any:
    raise TypeError("a bug")


@pytest.mark.parametrize("say", [_raises, lambda: ["a.gguf"], lambda: None])
def test_a_source_that_fails_is_done_without(say: Callable[[], Any]) -> None:
    class Broken(ListSource):
        def models(self) -> Sequence[Model]:
            said: Sequence[Model] = say()
            return said

    faults = Faults()
    found = Catalog([Broken(name="broken"), ListSource(model("a"))], faults=faults).models()
    assert [model.id for model in found] == ["a"]
    assert faults.counts == {"model source 'broken'": 1}


def test_a_source_that_says_what_is_to_be_mended_is_heard() -> None:
    class Refusing(ListSource):
        def models(self) -> Sequence[Model]:
            raise ConfigError("models_dir does not exist")

    with pytest.raises(ConfigError, match="models_dir"):
        Catalog([Refusing()])


def test_models_are_sorted_by_id() -> None:
    found = catalog_of(model("b"), model("c"), model("a")).models()
    assert [model.id for model in found] == ["a", "b", "c"]


def test_a_model_is_found_by_id_and_by_alias() -> None:
    a, b = model("a", "first", "eins"), model("b")
    models = catalog_of(a, b)
    assert models.resolve("a") is a
    assert models.resolve("eins") is a
    assert models.resolve("b") is b


def test_ids_may_hold_any_text() -> None:
    odd = model("Größe 7 / “x” \U0001f999")
    assert catalog_of(odd).resolve("Größe 7 / “x” \U0001f999") is odd


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    models = catalog_of(model("Qwen3-4B"), model("gemma", "qwen3-8b"))
    with pytest.raises(ModelNotFoundError) as caught:
        models.resolve("qwen3-4B")
    assert caught.value.message == (
        "model 'qwen3-4B' not found; did you mean 'Qwen3-4B' or 'qwen3-8b'? "
        "GET /v1/models lists all models"
    )
    assert caught.value.param == "model"


def test_an_unknown_name_like_no_other_is_answered_with_where_to_look() -> None:
    with pytest.raises(ModelNotFoundError, match="'x' not found; GET /v1/models lists all models"):
        catalog_of(model("gemma")).resolve("x")


def test_an_empty_catalog_says_how_to_fill_it() -> None:
    with pytest.raises(ModelNotFoundError, match=r"put \.gguf files into models_dir, or"):
        Catalog([]).resolve("x")


def test_a_very_long_name_is_cut_short_in_the_answer() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        catalog_of(model("gemma")).resolve("x" * 1_000_000)
    assert len(caught.value.message) < 300
    assert "xxx…'" in caught.value.message


def test_an_earlier_source_hides_models_of_the_same_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named, found, other = model("a", source="config"), model("a", "x"), model("b")
    with caplog.at_level(logging.INFO):
        models = Catalog([ListSource(named), ListSource(found, other, name="models_dir")])
    assert models.models() == (named, other)
    assert models.resolve("a") is named
    assert caplog.messages == ["model 'a' of models_dir is hidden by the one of config"]
    with pytest.raises(ModelNotFoundError):
        models.resolve("x")


def test_one_source_cannot_have_one_name_twice() -> None:
    with pytest.raises(ConfigError, match=r"list has two models named 'a': /m/1 and /m/2; rename"):
        catalog_of(model("a", path="/m/1"), model("a", path="/m/2"))


@pytest.mark.parametrize(
    ("models", "owner", "other"),
    [
        ([model("a", "b"), model("b")], "a", "b"),
        ([model("a", "x"), model("b", "x")], "b", "a"),
        ([model("a", "a")], "a", "a"),
        ([model("a", "x", "x")], "a", "a"),
    ],
)
def test_an_alias_that_is_another_name_is_an_error(
    models: list[Model], owner: str, other: str
) -> None:
    with pytest.raises(ConfigError, match=f"of model '{owner}' .* a name of model '{other}'"):
        catalog_of(*models)


@pytest.mark.parametrize("name", ["", "  ", "\udcff"])
def test_names_must_be_text(name: str) -> None:
    with pytest.raises(ConfigError, match="the id of the model at '/m'"):
        catalog_of(model(name, path="/m"))
    with pytest.raises(ConfigError, match="an alias of model 'a'"):
        catalog_of(model("a", name))


def test_paths_must_be_text() -> None:
    with pytest.raises(ConfigError, match="of model 'a' is not UTF-8; rename the file"):
        catalog_of(model("a", path="/m/\udcff.gguf"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small_model().write(tmp_path / "a.gguf")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the models whose headers were really read."""
    made: list[str] = []

    def recorded(path: str) -> tuple[GGUFHeader, ...]:
        made.append(path)
        return read_headers(path)

    monkeypatch.setattr(catalog, "read_headers", recorded)
    return made


def test_a_good_file_is_read_once(path: Path, reads: list[str]) -> None:
    a, b = model("a", path=str(path)), model("b", path=str(path))
    models = catalog_of(a, b)
    (header,) = models.check_file(a)
    assert header.architecture == "llama"
    assert models.check_file(b) == (header,)
    assert reads == [str(path)]


def test_a_file_that_changed_is_read_again(path: Path, reads: list[str]) -> None:
    models = catalog_of(a := model("a", path=str(path)))
    models.check_file(a)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    models.check_file(a)
    assert len(reads) == 2


def test_a_file_that_broke_is_refused_and_one_that_was_mended_is_not(path: Path) -> None:
    models = catalog_of(a := model("a", path=str(path)))
    models.check_file(a)
    path.write_bytes(b"GGUF")
    for _ in range(2):
        with pytest.raises(InvalidGGUFError):
            models.check_file(a)
    small_model().write(path)
    assert models.check_file(a)


def test_a_file_that_appears_while_it_is_looked_for_is_not_remembered(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = path.read_bytes()
    path.unlink()

    def just_in_time(name: str) -> tuple[GGUFHeader, ...]:
        path.write_bytes(data)
        return read_headers(name)

    monkeypatch.setattr(catalog, "read_headers", just_in_time)
    models = catalog_of(a := model("a", path=str(path)))
    assert models.check_file(a)
    monkeypatch.setattr(catalog, "read_headers", read_headers)
    path.unlink()
    with pytest.raises(ModelFileError):
        models.check_file(a)


@pytest.mark.parametrize("name", ["missing.gguf", "part-00002-of-00003.gguf", "a\0b.gguf"])
def test_a_file_that_is_not_there_is_refused_and_only_the_log_says_where_it_should_be(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    models = catalog_of(a := model("a", path=str(tmp_path / name)))
    with pytest.raises(ModelFileError) as caught:
        models.check_file(a)
    assert str(tmp_path) not in caught.value.message
    assert str(tmp_path) in caplog.text


def test_all_parts_of_a_model_are_checked_and_watched(tmp_path: Path, reads: list[str]) -> None:
    parts = [tmp_path / f"a-0000{number}-of-00002.gguf" for number in (1, 2)]
    GGUFFile(metadata={"split.count": 2}).write(parts[0])
    GGUFFile(tensors=[Tensor("x")]).write(parts[1])
    models = catalog_of(a := model("a", path=str(parts[0])))
    assert len(models.check_file(a)) == 2
    assert len(models.check_file(a)) == 2
    assert len(reads) == 1
    parts[1].unlink()
    with pytest.raises(ModelFileError, match=r"a-00002-of-00002\.gguf is missing"):
        models.check_file(a)


class Means:
    """A resolver that says what it was told to say, or raises it."""

    def __init__(self, meant: str | Exception | None, name: str = "means") -> None:
        self.name = name
        self._meant = meant

    def resolve(self, requested: str, models: Sequence[Model]) -> str | None:
        assert requested == "the-best"
        assert [model.id for model in models] == ["a", "b"]
        if isinstance(self._meant, Exception):
            raise self._meant
        return self._meant


def resolved(*resolvers: Means, faults: Faults | None = None) -> Model:
    models = Catalog([ListSource(model("a"), model("b", "second"))], resolvers, faults)
    return models.resolve("the-best")


def test_a_name_that_no_model_has_is_put_to_the_resolvers_in_turn() -> None:
    assert resolved(Means(None), Means("b"), Means("a")).id == "b"
    assert resolved(Means("second")).id == "b"
    with pytest.raises(ModelNotFoundError, match="'the-best' not found"):
        resolved(Means(None))


def test_a_name_that_a_model_has_is_put_to_nobody() -> None:
    broken = Means(AssertionError("it must not be asked"))
    assert Catalog([ListSource(model("a"))], [broken]).resolve("a").id == "a"


@pytest.mark.parametrize("meant", [ValueError("broken"), "nobody"])
def test_a_resolver_that_fails_is_passed_over_and_counted(meant: Exception | str) -> None:
    faults = Faults()
    assert resolved(Means(meant), Means("a", "sound"), faults=faults).id == "a"
    assert faults.counts == {"model resolver 'means'": 1}
