"""Models of a hub: judged by what is read of them, fetched, checked and found again."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from llm_router_mw.errors import (
    ConfigError,
    DiskFullError,
    DownloadError,
    InvalidGGUFError,
    ModelFileError,
)
from llm_router_mw.gguf import ValueType, read_headers
from llm_router_mw.hub import Hub, transfer
from llm_router_mw.hub.space import SPARE_BYTES
from llm_router_mw.hub_reference import HubReference, parse_reference
from llm_router_mw.testing.gguf import array, small_model
from tests.support.fake_hub import COMMIT, FakeHub
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

REPO = "owner/tiny-GGUF"
NAME = "tiny-Q4_K_M.gguf"
MODEL = parse_reference(REPO)
MIB = 1024**2
CONTENT = small_model().data() + bytes(5 * MIB)


class Progress:
    """What was told of a download."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))


async def download(environ: dict[str, str], reference: HubReference = MODEL) -> Path:
    with anyio.fail_after(20):
        return await Hub(environ).download(reference, Progress())


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(transfer, "_RETRY_LOCK_SECONDS", 0.01)


async def test_a_model_is_fetched_into_the_cache_as_other_tools_lay_it_out(
    hub: FakeHub, environ: dict[str, str], cache: Path
) -> None:
    stored = hub.add(REPO, NAME, CONTENT)
    progress = Progress()
    found = await Hub(environ).download(MODEL, progress)
    folder = cache / "models--owner--tiny-GGUF"
    assert found == folder / "snapshots" / COMMIT / NAME
    assert found.read_bytes() == CONTENT
    assert found.readlink() == Path("../../blobs") / stored.oid
    assert (folder / "refs" / "main").read_text() == COMMIT
    assert [path.name for path in (folder / "blobs").iterdir()] == [stored.oid]
    assert progress.told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in progress.told] == sorted(done for done, _ in progress.told)
    assert len(progress.told) > 2


async def test_a_cached_model_is_found_without_the_network(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, CONTENT)
    found = await download(environ)
    hub.asked.clear()
    assert Hub(environ, offline=True).find(MODEL) == found
    assert Hub(environ).find(parse_reference(f"{REPO}:q4_k_m")) == found
    assert Hub(environ).find(parse_reference(f"{REPO}:Q8_0")) is None
    assert Hub(environ).find(parse_reference("owner/other")) is None
    assert hub.asked == []


async def test_small_files_are_checked_by_the_hash_that_git_knows_them_by(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, small_model().data(), is_large=False)
    assert (await download(environ)).read_bytes() == small_model().data()


async def test_all_parts_of_a_model_are_fetched(hub: FakeHub, environ: dict[str, str]) -> None:
    names = [f"Q4_K_M/big-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        hub.add(REPO, name, CONTENT + bytes([number]))
    progress = Progress()
    found = await Hub(environ).download(MODEL, progress)
    folder = found.parents[1]
    assert found == folder / names[0]
    assert [(folder / name).read_bytes()[-1] for name in names] == [0, 1, 2]
    assert progress.told[-1] == (3 * len(CONTENT) + 3, 3 * len(CONTENT) + 3)


async def test_a_model_of_which_a_part_is_missing_is_not_found(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    names = [f"big-Q4_K_M-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, name in enumerate(names):
        hub.add(REPO, name, CONTENT + bytes([number]))
    found = await download(environ)
    found.with_name(names[1]).unlink()
    assert Hub(environ).find(MODEL) is None
    before = hub.sent_bytes
    assert await download(environ) == found
    assert hub.sent_bytes == before  # its contents were there


async def test_a_download_that_is_cut_short_goes_on_where_it_ended(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.cuts = [1_000_000, 2_500_000, 0]
    assert (await download(environ)).read_bytes() == CONTENT
    ranges = [each.headers["range"] for each in hub.asked if each.what == "cdn"]
    assert ranges == ["bytes=0-", "bytes=1000000-", "bytes=3500000-", "bytes=3500000-"]
    assert hub.sent_bytes == len(CONTENT)


async def test_one_that_was_cancelled_goes_on_where_it_ended(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.hold_at = 9 * MIB // 2
    progress = Progress()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Hub(environ).download, MODEL, progress)
        await until(lambda: progress.told and progress.told[-1][0] >= 4 * MIB)
        tasks.cancel_scope.cancel()
    hub.go_on.set()
    hub.hold_at = None
    assert Hub(environ).find(MODEL) is None
    hub.asked.clear()
    assert (await download(environ)).read_bytes() == CONTENT
    (resumed,) = (each for each in hub.asked if each.what == "cdn")
    start = int(resumed.headers["range"].removeprefix("bytes=").rstrip("-"))
    assert 4 * MIB <= start <= 5 * MIB


async def test_a_server_that_sends_no_parts_of_files_is_heard_from_the_beginning(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.cuts, hub.knows_ranges = [1_000_000], False
    assert (await download(environ)).read_bytes() == CONTENT
    assert hub.sent_bytes == 1_000_000 + len(CONTENT)


@pytest.mark.parametrize("rest", [b"something else", bytes(20 * MIB)])
async def test_what_an_earlier_attempt_left_is_checked_too(
    hub: FakeHub, environ: dict[str, str], cache: Path, rest: bytes
) -> None:
    stored = hub.add(REPO, NAME, CONTENT)
    left = cache / "models--owner--tiny-GGUF" / "blobs" / f"{stored.oid}.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(rest)
    if len(rest) < len(CONTENT):
        with pytest.raises(DownloadError, match="arrived damaged"):
            await download(environ)
        assert not left.exists()
    assert (await download(environ)).read_bytes() == CONTENT


async def test_what_arrives_damaged_is_deleted(
    hub: FakeHub, environ: dict[str, str], cache: Path
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.damages_from = 0
    with pytest.raises(DownloadError, match=f"{NAME} arrived damaged: .* ask again"):
        await download(environ)
    assert Hub(environ).find(MODEL) is None
    assert list((cache / "models--owner--tiny-GGUF" / "blobs").iterdir()) == []
    hub.damages_from = None
    assert (await download(environ)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("claimed", "problem"), [(100, "sends more"), (2 * len(CONTENT), "little")]
)
async def test_a_file_of_another_size_than_the_list_says_is_refused(
    hub: FakeHub, environ: dict[str, str], claimed: int, problem: str
) -> None:
    stored = hub.add(REPO, NAME, CONTENT)
    stored.claims["lfs"] = {"oid": stored.oid, "size": claimed}
    with pytest.raises(DownloadError, match=problem):
        await download(environ)


async def test_trouble_that_may_pass_is_borne(hub: FakeHub, environ: dict[str, str]) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.statuses = [503, 429, 500]
    assert (await download(environ)).read_bytes() == CONTENT


async def test_trouble_that_does_not_pass_is_told(hub: FakeHub, environ: dict[str, str]) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.statuses = [503] * transfer.ATTEMPTS
    with pytest.raises(DownloadError, match="the hub answered 503"):
        await download(environ)
    assert hub.count("cdn") == transfer.ATTEMPTS
    hub.statuses = [404]
    with pytest.raises(DownloadError, match=r"has no tiny.* \(404\)"):
        await download(environ)


async def test_several_that_want_one_file_fetch_it_once(
    hub: FakeHub, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.hold_at = 4 * MIB
    waiting = []
    try_lock = transfer._try_lock

    def seen(descriptor: int) -> bool:
        is_mine = try_lock(descriptor)
        if not is_mine:
            waiting.append(descriptor)
        return is_mine

    monkeypatch.setattr(transfer, "_try_lock", seen)
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(download, environ)
        await until(lambda: len(set(waiting)) == 2)
        hub.go_on.set()
    assert hub.count("cdn") == 1
    assert hub.sent_bytes == len(CONTENT)


async def test_a_disk_without_room_is_told_before_anything_is_fetched(
    hub: FakeHub, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, NAME, CONTENT)
    free = SPARE_BYTES + len(CONTENT) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    with pytest.raises(DiskFullError, match="needs 5 MiB more") as caught:
        await download(environ)
    assert caught.value.status == 507
    assert caught.value.fields["needed_bytes"] == len(CONTENT)
    assert hub.count("cdn") == 0
    free += 1
    await download(environ)


async def test_a_cache_that_cannot_be_written_is_told(
    hub: FakeHub, environ: dict[str, str], cache: Path
) -> None:
    hub.add(REPO, NAME, CONTENT)
    await anyio.Path(cache).write_text("a file")
    with pytest.raises(DownloadError, match="set HF_HUB_CACHE"):
        await download(environ)


async def test_a_file_that_cannot_be_written_is_told(
    hub: FakeHub, environ: dict[str, str], cache: Path
) -> None:
    hub.add(REPO, NAME, CONTENT)
    folder = anyio.Path(cache / "models--owner--tiny-GGUF")
    await folder.mkdir(parents=True)
    await (folder / "blobs").write_text("a file")
    with pytest.raises(DownloadError, match=f"{NAME} cannot be written to the hub's cache"):
        await download(environ)


async def test_what_has_come_whole_is_only_checked(
    hub: FakeHub, environ: dict[str, str], cache: Path
) -> None:
    stored = hub.add(REPO, NAME, CONTENT)
    blobs = anyio.Path(cache / "models--owner--tiny-GGUF" / "blobs")
    await blobs.mkdir(parents=True)
    await (blobs / f"{stored.oid}.incomplete").write_bytes(CONTENT)
    assert (await download(environ)).read_bytes() == CONTENT
    assert hub.count("cdn") == 0


async def test_where_files_cannot_be_locked_nobody_waits(
    hub: FakeHub, environ: dict[str, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "fcntl", None)
    hub.add(REPO, NAME, CONTENT)
    assert (await download(environ)).read_bytes() == CONTENT
    assert not (cache / ".locks").exists()


async def test_a_repository_that_is_another_one_by_now_is_looked_at_anew(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, CONTENT)
    one = Hub(environ)
    hub.statuses = [404]
    with pytest.raises(DownloadError, match="404"):
        await one.download(MODEL, Progress())
    hub.repos[REPO] = {}
    hub.add(REPO, f"new-{NAME}", CONTENT)
    assert (await one.download(MODEL, Progress())).name == f"new-{NAME}"


# Headers


async def test_a_header_is_read_without_fetching_the_model(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "giant.gguf"
    file.write_bytes(small_model().data())
    with file.open("r+b") as giant:
        giant.truncate(80 * 1024**3)
    hub.add(REPO, NAME, file)
    with anyio.fail_after(20):
        path = await Hub(environ).peek(MODEL, tmp_path / "headers")
    assert read_headers(path) == read_headers(file)
    assert path.stat().st_size == file.stat().st_size
    assert path.stat().st_blocks * 512 <= 2 * MIB
    assert hub.count("cdn") == 1
    assert hub.sent_bytes <= MIB
    assert Hub(environ).find(MODEL) is None


@pytest.mark.parametrize("knows_ranges", [True, False])
async def test_a_long_header_is_fetched_in_growing_pieces(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path, knows_ranges: bool
) -> None:
    words = array(ValueType.STRING, ["word" * 8] * 100_000)
    model = small_model({"tokenizer.ggml.tokens": words})
    size = len(model.header())
    hub.add(REPO, NAME, model.data() + bytes(40 * MIB))
    hub.knows_ranges = knows_ranges
    path = await Hub(environ).peek(MODEL, tmp_path / "headers")
    assert read_headers(path)[0].metadata["tokenizer.ggml.tokens"].length == 100_000  # type: ignore[union-attr]
    ranges = [each.headers["range"] for each in hub.asked if each.what == "cdn"]
    assert ranges == ["bytes=0-1048575", "bytes=1048576-2097151", "bytes=2097152-4194303"]
    if knows_ranges:
        assert hub.sent_bytes < 2 * size


async def test_the_headers_of_all_parts_are_read_once(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    for number in (1, 2):
        model = small_model({"split.count": 2})
        hub.add(REPO, f"big-Q8_0-0000{number}-of-00002.gguf", model.data() + bytes(4 * MIB))
    one = Hub(environ)
    path = await one.peek(MODEL, tmp_path / "headers")
    assert len(read_headers(path)) == 2
    asked = len(hub.asked)
    assert await one.peek(MODEL, tmp_path / "headers") == path
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"<html>", "it begins with b'<htm'"),
        (small_model().data()[:100], "ends"),
        (b"GGUF" + bytes(3 * MIB), "version 0"),
    ],
)
async def test_what_is_no_model_is_told_as_of_a_file(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path, content: bytes, problem: str
) -> None:
    hub.add(REPO, NAME, content)
    with pytest.raises(InvalidGGUFError, match=problem):
        await Hub(environ).peek(MODEL, tmp_path / "headers")
    assert hub.sent_bytes <= MIB


async def test_a_header_without_end_is_given_up(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_router_mw.gguf.prefix.MAX_PREFIX_BYTES", 3 * MIB)
    words = array(ValueType.STRING, ["word" * 8] * 200_000)
    hub.add(REPO, NAME, small_model({"tokenizer.ggml.tokens": words}).data())
    with pytest.raises(InvalidGGUFError, match="longer than 3145728 bytes"):
        await Hub(environ).peek(MODEL, tmp_path / "headers")
    assert hub.sent_bytes == 3 * MIB


async def test_a_hub_that_says_nothing_is_given_up(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_router_mw.hub.hub.LOOK_SECONDS", 0.2)
    hub.add(REPO, NAME, CONTENT)
    hub.hold_at = 100
    with pytest.raises(DownloadError, match=r"within 0\.2 s"):
        await Hub(environ).peek(MODEL, tmp_path / "headers")


async def test_a_file_that_is_shorter_than_the_list_says_has_no_header(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    stored = hub.add(REPO, NAME, small_model().data())
    stored.claims["lfs"] = {"oid": stored.oid, "size": 2 * stored.size}
    with pytest.raises(DownloadError, match="the hub sent too little"):
        await Hub(environ).peek(MODEL, tmp_path / "headers")


async def test_another_part_than_was_asked_for_is_not_taken(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.shift = 1
    with pytest.raises(DownloadError, match="another part of"):
        await Hub(environ).peek(MODEL, tmp_path / "headers")


# What may be asked, and by whom


async def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.token = "hf_secret"
    await download({**environ, "HF_TOKEN": "hf_secret"})
    for each in hub.asked:
        assert ("authorization" in each.headers) is (each.what != "cdn")
    shutil.rmtree(environ["HF_HUB_CACHE"])
    with anyio.fail_after(20):
        await Hub(environ, token="hf_secret").download(MODEL, Progress())


async def test_signed_addresses_are_not_logged(
    hub: FakeHub, environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(REPO, NAME, CONTENT)
    with caplog.at_level(logging.INFO):
        await download(environ)
    assert any(hub.cdn in message for message in caplog.messages), "the library logs no addresses"
    assert "Signature" not in caplog.text


@pytest.mark.parametrize(
    ("token", "problem"), [(None, "give a token with -hft or HF_TOKEN"), ("hf_other", "the right")]
)
async def test_what_is_not_shown_is_told_with_what_to_do(
    hub: FakeHub, environ: dict[str, str], token: str | None, problem: str
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.token = "hf_secret"
    with pytest.raises(DownloadError, match=problem) as caught:
        await Hub(environ, token=token).download(MODEL, Progress())
    assert "hf_" not in caught.value.message.replace("hf_token", "")


async def test_a_token_that_could_be_two_headers_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="characters that no token has") as caught:
        Hub(environ, token="hf_a\r\nX: y")
    assert "hf_a" not in caught.value.message


async def test_offline_never_asks_and_says_what_is_missing(
    hub: FakeHub, environ: dict[str, str], tmp_path: Path
) -> None:
    hub.add(REPO, NAME, CONTENT)
    one = Hub(environ, offline=True)
    for ask in (one.download(MODEL, Progress()), one.peek(MODEL, tmp_path)):
        with pytest.raises(ModelFileError, match=f"{REPO} is not in the hub's cache, and offline"):
            await ask
    one.require_network()
    assert hub.asked == []


async def test_a_hub_that_is_not_there_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    with pytest.raises(DownloadError, match="the hub cannot be reached"):
        await Hub(environ).peek(MODEL, tmp_path)


@pytest.mark.parametrize("address", ["ftp://hub", "hub.example", "https://"])
async def test_an_address_that_is_none_is_refused(environ: dict[str, str], address: str) -> None:
    with pytest.raises(ConfigError, match="HF_ENDPOINT is not an address"):
        Hub({**environ, "HF_ENDPOINT": address}).require_network()


async def test_a_library_that_is_missing_is_named(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llm_router_mw.hub.client", None)
    with pytest.raises(ConfigError, match=r"pip install 'llm-router-mw\[hub\]'"):
        Hub(environ).require_network()
    Hub(environ, offline=True).require_network()


# Answers that are not to be trusted


async def test_long_lists_come_in_pages(hub: FakeHub, environ: dict[str, str]) -> None:
    for number in range(7):
        hub.add(REPO, f"note{number}.txt", b"")
    hub.add(REPO, NAME, CONTENT)
    hub.page_size = 3
    await download(environ)
    assert hub.count("tree") == 3


async def test_lists_without_end_are_cut(
    hub: FakeHub, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_router_mw.hub.client._MAX_PAGES", 2)
    for number in range(7):
        hub.add(REPO, f"note{number}.txt", b"")
    hub.page_size = 1
    with pytest.raises(ModelFileError):
        await download(environ)
    assert hub.count("tree") == 2


@pytest.mark.parametrize(
    "claims",
    [
        {"path": "../../tiny-Q4_K_M.gguf"},
        {"path": "/tiny-Q4_K_M.gguf"},
        {"path": "a//tiny-Q4_K_M.gguf"},
        {"path": "a\\tiny-Q4_K_M.gguf"},
        {"path": 7},
        {"lfs": {"oid": "../../x", "size": 3}},
        {"lfs": {"oid": "0" * 64, "size": -1}},
        {"lfs": {"oid": "0" * 64, "size": "3"}},
        {"lfs": {"size": 3}},
        {"type": "directory"},
    ],
)
async def test_entries_that_could_lead_out_of_the_cache_are_left_out(
    hub: FakeHub, environ: dict[str, str], claims: dict[str, object], tmp_path: Path
) -> None:
    hub.add(REPO, NAME, CONTENT).claims = dict(claims)
    with pytest.raises(ModelFileError, match=f"{REPO} has no GGUF file; name a repository with"):
        await download(environ)
    assert hub.count("cdn") == 0


@pytest.mark.parametrize(
    ("what", "answer", "problem"),
    [
        ("refs", b"{", "is no JSON"),
        ("refs", b"[]", "does not say what is in"),
        ("refs", b'{"branches": [{"name": "main", "targetCommit": "../.."}, 3]}', "does not say"),
        ("tree", b"{}", "has no GGUF file"),
        ("tree", b"[3, null, {}]", "has no GGUF file"),
        ("tree", b"[" + b" " * 33 * MIB, "does not end"),
    ],
)
async def test_answers_that_make_no_sense_are_told(
    hub: FakeHub, environ: dict[str, str], what: str, answer: bytes, problem: str
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.answers[what] = answer
    with pytest.raises((DownloadError, ModelFileError), match=problem):
        await download(environ)


async def test_a_repository_without_main_is_read_at_its_first_branch(
    hub: FakeHub, environ: dict[str, str]
) -> None:
    hub.add(REPO, NAME, CONTENT)
    hub.branches = [{"name": "trunk", "targetCommit": COMMIT}]
    await download(environ)
