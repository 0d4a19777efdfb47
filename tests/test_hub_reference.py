"""Names of models in repositories of the hub."""

from __future__ import annotations

import pytest

from llm_router_mw.errors import ConfigError
from llm_router_mw.hub_reference import HubReference, parse_reference, reference_of


@pytest.mark.parametrize(
    ("text", "file", "reference", "path"),
    [
        ("owner/name", None, HubReference("owner/name"), "hf://owner/name"),
        ("o/n-1.2_GGUF", None, HubReference("o/n-1.2_GGUF"), "hf://o/n-1.2_GGUF"),
        ("owner/name:q4_k_m", None, HubReference("owner/name", "Q4_K_M"), "hf://owner/name:Q4_K_M"),
        (
            "owner/name:Q8_0",
            "deep/down/a b.gguf",
            HubReference("owner/name", "", "deep/down/a b.gguf"),
            "hf://owner/name/deep/down/a b.gguf",
        ),
    ],
)
def test_a_reference_and_the_path_that_stands_for_it(
    text: str, file: str | None, reference: HubReference, path: str
) -> None:
    assert parse_reference(text, file) == reference
    assert reference.path == path
    assert reference_of(path) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "owner/",
        "/name",
        "a/b/c",
        "../name",
        "owner/..",
        "owner/-name",
        "owner/a--b",
        "owner/na me",
        "https://hub/owner/name",
        "owner/name\n",
        f"owner/{'n' * 300}",
    ],
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a repository; write it as owner/name"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["owner/name:", "owner/name:a/b", "owner/name:Q4:Q8"])
def test_what_is_no_quantisation_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no quantisation"):
        parse_reference(text)


@pytest.mark.parametrize(
    "file",
    ["", "a.bin", "/a.gguf", "../a.gguf", "a/../b.gguf", "a//b.gguf", "a\\b.gguf", "c:a.gguf"],
)
def test_what_is_no_file_of_a_repository_is_refused(file: str) -> None:
    with pytest.raises(ConfigError, match="is not the path of a"):
        parse_reference("owner/name", file)


def test_other_paths_stand_for_themselves() -> None:
    assert reference_of("/models/a.gguf") is None
    with pytest.raises(ConfigError):
        reference_of("hf://owner")
