"""``llm-router-mw estimate``: what people read, and what programs read."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from llm_router_mw.cli import main
from llm_router_mw.cli.estimate_table import print_estimate
from llm_router_mw.memory.outlook import Outlook
from llm_router_mw.types import Device
from tests.support.model_headers import dense_tensors, write_sparse
from tests.support.sparse_projectors import TOWERS, write_projector

GIB = 1024**3
CARD = ("--devices", "cuda:2GiB,host:8GiB")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_sparse(tmp_path / "model.gguf", metadata={"context_length": 131_072})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["estimate", *map(str, arguments)])


def table(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = msgspec.json.decode(result.output)
    return parsed


def test_the_table_has_a_row_for_each_device(path: Path) -> None:
    lines = table(path, *CARD).splitlines()
    assert lines[0] == "model.gguf: llama, 8192 tokens of context"
    headings = "device weights context compute overhead total at most free after margin"
    assert " ".join(lines[1].split()) == headings
    assert lines[2].startswith("cuda:0   95 MiB   32 MiB   38 MiB   0.4 GiB  0.6 GiB")
    assert "░" in lines[2]
    assert lines[2].split()[-1] == "MiB"
    assert lines[3].startswith("host ")
    assert lines[4].startswith("largest context that fits: 20736 ")
    assert len(lines) == 5


def test_it_says_what_is_short_and_what_would_fit(path: Path) -> None:
    lines = table(path, "-c", "131072", *CARD).splitlines()
    assert lines[2].rstrip().endswith("GiB short")
    assert "does not fit: 0." in lines[2]
    assert lines[4].startswith("largest context that fits: 20736 (with -ctk q8_0 -ctv q8_0: 25088)")


def test_it_says_so_if_nothing_fits(path: Path) -> None:
    (*_, last) = table(path, "--devices", "cuda:512MiB,host:8GiB").splitlines()
    assert last.startswith("no context fits: it needs fewer layers on the GPU (-ngl)")


def test_it_says_so_if_everything_fits(path: Path) -> None:
    (*_, last) = table(path, "--devices", "cuda:24GiB,host:8GiB").splitlines()
    assert last == ("largest context that fits: 131072, all that the model was trained with")


def test_a_rough_estimate_says_why(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "new.gguf", "brand-new")
    output = table(path, *CARD)
    assert "new.gguf: brand-new, 8192 tokens of context — a rough estimate" in output
    assert "note: the architecture 'brand-new' is not known here" in output


def test_the_margin_stays_free(path: Path) -> None:
    default, none = json(path, *CARD), json(path, *CARD, "--models-memory-margin", "0")
    assert default["devices"][0]["margin_bytes"] == GIB
    gained = none["devices"][0]["free_after_bytes"] - default["devices"][0]["free_after_bytes"]
    assert gained == GIB


def test_programs_get_bytes(path: Path) -> None:
    found = json(path, *CARD)
    assert set(found) == set(Outlook.__struct_fields__)
    gpu = found["devices"][0]
    assert (gpu["id"], gpu["kind"], gpu["total_bytes"]) == ("cuda:0", "cuda", 2 * GIB)
    assert sum(gpu["expected"].values()) == gpu["expected_bytes"] < gpu["upper_bytes"]
    assert found["fits"] is True


@pytest.mark.parametrize(
    ("arguments", "devices"),
    [
        ((), ["cuda:0", "cuda:1", "host"]),
        (("-ngl", "0"), ["host"]),
        (("-ngl", "all"), ["cuda:0", "cuda:1", "host"]),
        (("-sm", "none", "-mg", "1"), ["cuda:1", "host"]),
    ],
)
def test_flags_say_where_things_go(
    path: Path, arguments: tuple[str, ...], devices: list[str]
) -> None:
    found = json(path, "--devices", "cuda:4G,cuda:4G,host:8G", *arguments)
    assert [each["id"] for each in found["devices"]] == devices


def test_flags_are_those_of_serve(path: Path) -> None:
    plain = json(path, "--devices", "host:8G")["devices"][0]["expected"]
    half = json(path, "--devices", "host:8G", "-ctk", "q8_0", "-ctv", "q8_0", "-c", "8192")
    assert half["devices"][0]["expected"]["context_bytes"] * 32 == plain["context_bytes"] * 17
    split = json(path, "--devices", "cuda:4G,cuda:4G,host:8G", "-ts", "1,0")
    assert split["devices"][1]["expected"]["weights_bytes"] == 0
    pooled = json(path, "--devices", "host:8G", "--pooling", "mean")
    assert pooled["devices"][0]["expected"]["compute_bytes"] > plain["compute_bytes"]


def test_a_projector_has_a_line_of_its_own_and_a_part_of_the_devices_row(
    path: Path, tmp_path: Path
) -> None:
    projector = write_projector(tmp_path / "mmproj.gguf", TOWERS["gemma-3-4b"])
    lines = table(path, *CARD, "--mmproj", projector).splitlines()
    assert lines[4].startswith("with the projector (gemma3) on cuda:0: weights 0.1 GiB, compute ")
    plain, both = json(path, *CARD), json(path, *CARD, "-mm", projector)
    assert plain["projector"] is None
    found = both["projector"]
    assert (found["projector"], found["device"]) == ("gemma3", "cuda:0")
    for part in ("weights_bytes", "compute_bytes"):
        before, after = (each["devices"][0]["expected"][part] for each in (plain, both))
        assert after - before == found[part]
    assert both["devices"][0]["upper_bytes"] > plain["devices"][0]["upper_bytes"]
    assert both["largest_n_ctx"] < plain["largest_n_ctx"]
    on_host = json(path, *CARD, "-mm", projector, "--no-mmproj-offload")
    assert on_host["projector"]["device"] == "host"


def test_a_file_that_is_no_projector_is_named(path: Path) -> None:
    result = run(path, *CARD, "--mmproj", path)
    assert result.exit_code == 1
    assert "no multimodal projector" in result.output


def test_a_part_of_a_model_stands_for_all_of_it(tmp_path: Path) -> None:
    for number in (1, 2):
        write_sparse(
            tmp_path / f"m-0000{number}-of-00002.gguf",
            tensors=dense_tensors() if number == 1 else {"x.weight": ("f32", (1024**2,))},
            general={"split.count": 2},
        )
    whole = json(tmp_path / "m-00002-of-00002.gguf", "--devices", "host:8G")
    assert whole["model"] == "m-00002-of-00002.gguf"
    assert whole["soft_bytes"] > 4 * 1024**2


def test_without_devices_those_of_the_machine_count(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Probe:
        name = "mine"

        def inventory(self) -> list[Device]:
            return [
                Device(
                    id="host",
                    pool="host",
                    kind="host",
                    name="mine",
                    total_bytes=7 * GIB,
                    free_bytes=5 * GIB,
                )
            ]

        def used_bytes(self, pids: object) -> dict[str, int]:
            return {}  # pragma: no cover

    command = sys.modules["llm_router_mw.cli.estimate"]
    mine = SimpleNamespace(probes={"mine": Probe()})
    monkeypatch.setattr(command, "load_registry", lambda *_: mine)
    (host,) = json(path)["devices"]
    assert (host["name"], host["total_bytes"], host["free_bytes"]) == ("mine", 7 * GIB, 5 * GIB)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--devices", "cuda"), "'cuda' is not a kind and its memory, as cuda:24GiB"),
        (("--devices", "tpu:4GiB"), "'tpu:4GiB' is not a kind and its memory"),
        (("--devices", "cuda:much"), "'much' is no size; write it as 24GiB or 512MiB"),
        (("--devices", "host:1G,host:2G"), "there is one host only"),
        (("--devices", "cuda:4G", "-mg", "1"), "--main-gpu is 1, but there are 1 GPUs"),
        (("--devices", "host:4G", "-ctv", "q8_0", "-fa", "off"), "set flash_attn to 'on'"),
        (("-ts", "a,b"), "'a,b' is no list of numbers, as 3,1"),
        (("-ngl", "some"), "'some' is no number of layers; write one, or all"),
        (("-ngl", "-2"), "n_gpu_layers is -2; it must be from -1 to"),
    ],
)
def test_what_cannot_be_read_is_refused(path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run(path, *arguments)
    assert result.exit_code != 0
    assert words in " ".join(result.output.replace("│", " ").split())


def test_a_missing_file_and_one_that_is_no_model(tmp_path: Path) -> None:
    missing = run(tmp_path / "none.gguf", *CARD)
    assert missing.exit_code == 1
    assert "does not exist; check the path" in missing.output
    (tmp_path / "text.gguf").write_text("no model")
    wrong = run(tmp_path / "text.gguf", *CARD)
    assert wrong.exit_code == 1
    assert "name a .gguf file" in wrong.output


@pytest.mark.parametrize(
    ("size", "n_bytes"),
    [("24GiB", 24 * GIB), ("24G", 24 * GIB), ("1.5gb", 3 * GIB // 2), ("64", 64), ("2 MiB", 2**21)],
)
def test_sizes(path: Path, size: str, n_bytes: int) -> None:
    (host,) = json(path, "--devices", f"host:{size}")["devices"]
    assert host["total_bytes"] == n_bytes


def test_a_narrow_terminal_gets_the_numbers_without_the_bars(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlook = msgspec.convert(json(path, *CARD), Outlook)
    wide, narrow = io.StringIO(), io.StringIO()
    print_estimate(outlook, "model", wide)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(Console, "is_terminal", True)
    print_estimate(outlook, "model", narrow)
    assert "░" in wide.getvalue()
    assert "░" not in narrow.getvalue()
    assert "free after margin" in narrow.getvalue()


def test_a_draft_model_takes_its_part(path: Path, tmp_path: Path) -> None:
    draft = write_sparse(
        tmp_path / "draft.gguf", metadata={"block_count": 2}, tensors=dense_tensors(n_layer=2)
    )
    plain, both = json(path, *CARD), json(path, "-md", draft, *CARD)
    for part in ("weights_bytes", "context_bytes", "compute_bytes"):
        one, two = (each["devices"][0]["expected"][part] for each in (plain, both))
        assert two > one
    assert both["largest_n_ctx"] < plain["largest_n_ctx"]
    missing = run(path, "--model-draft", tmp_path / "none.gguf", *CARD)
    assert missing.exit_code == 2
