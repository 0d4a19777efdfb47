"""Which file of a repository is meant."""

from __future__ import annotations

import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.hub.choice import chosen
from llm_router_mw.hub_reference import parse_reference

PARTS = tuple(f"Q6_K/big-Q6_K-0000{number}-of-00003.gguf" for number in (1, 2, 3))
REPO = [
    "README.md",
    "imatrix-Q4_K_M.gguf",
    "m-IQ4_XS.gguf",
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m-Q8_0.gguf",
    "m-UD-IQ2_XXS.gguf",
    "m.BF16.gguf",
    "mmproj-Q8_0.gguf",
    "mtp-m-Q4_K_M.gguf",
    *reversed(PARTS),
]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("o/r", ("m-Q4_K_M.gguf",)),
        ("o/r:q8_0", ("m-Q8_0.gguf",)),
        ("o/r:BF16", ("m.BF16.gguf",)),
        ("o/r:Q6_K", PARTS),
        ("o/r:UD-IQ2_XXS", ("m-UD-IQ2_XXS.gguf",)),
        # As llama-server has it: the end of a name is enough, where nothing is closer.
        ("o/r:Q4_XS", ("m-IQ4_XS.gguf",)),
    ],
)
def test_the_quantisation_is_looked_for_in_the_names(asked: str, found: tuple[str, ...]) -> None:
    assert chosen(REPO, parse_reference(asked)) == found


def test_without_a_quantisation_the_usual_ones_come_first() -> None:
    names = ["a-F16.gguf", "b-Q8_0.gguf", "c-Q4_K_M.gguf"]
    assert chosen(names, parse_reference("o/r")) == ("c-Q4_K_M.gguf",)
    assert chosen(names[:2], parse_reference("o/r")) == ("b-Q8_0.gguf",)
    assert chosen(names[:1], parse_reference("o/r")) == ("a-F16.gguf",)


def test_the_closest_name_is_taken() -> None:
    names = ["a-IQ4_NL.gguf", "b-Q4_NL.gguf"]
    assert chosen(names, parse_reference("o/r:Q4_NL")) == ("b-Q4_NL.gguf",)


def test_a_file_may_be_named_and_brings_its_other_parts() -> None:
    assert chosen(REPO, parse_reference("o/r:Q8_0", "m.BF16.gguf")) == ("m.BF16.gguf",)
    assert chosen(REPO, parse_reference("o/r", PARTS[1])) == PARTS
    assert chosen(REPO, parse_reference("o/r", "mmproj-Q8_0.gguf")) == ("mmproj-Q8_0.gguf",)


@pytest.mark.parametrize(
    ("asked", "file", "problem"),
    [
        ("o/r:Q3_K", None, "o/r has no GGUF file of Q3_K; it has Q6_K/big.*, m-IQ4_XS.gguf"),
        ("o/r", "other.gguf", "o/r has no file other.gguf; it has"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(asked: str, file: str | None, problem: str) -> None:
    with pytest.raises(ModelFileError, match=problem) as caught:
        chosen(REPO, parse_reference(asked, file))
    assert "mmproj" not in caught.value.message


def test_long_lists_are_cut() -> None:
    names = [f"m-{number:02}.gguf" for number in range(20)]
    with pytest.raises(ModelFileError, match=r"m-11\.gguf and 8 more"):
        chosen(names, parse_reference("o/r:Q8_0"))


def test_a_model_that_lacks_a_part_is_told() -> None:
    with pytest.raises(ModelFileError, match=r"lacks Q6_K/big-Q6_K-00002-of-00003\.gguf, one of 3"):
        chosen([PARTS[0], PARTS[2]], parse_reference("o/r"))


def test_names_that_claim_no_parts_are_taken_as_they_are() -> None:
    name = "m-00001-of-00000.gguf"
    assert chosen([name], parse_reference("o/r")) == (name,)
