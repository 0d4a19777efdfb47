"""Web servers whose routers are not made alike: who replaces whom, and who may finish."""

from __future__ import annotations

from pathlib import Path

from tests.support.answers import ask, client
from tests.support.processes import START_SECONDS, until
from tests.support.shared_site import is_running, site
from tests.support.talks import talking

COMMAND = "uvicorn --timeout-keep-alive 60 --port {port} app:app"
LONG = 120


def test_with_another_option_a_new_host_starts_and_the_old_one_finishes(
    models_dir: Path, tmp_path: Path
) -> None:
    with (
        site(tmp_path, models_dir=str(models_dir)) as shared,
        shared.serving(COMMAND, "before") as before,
        client(before.url) as old,
    ):
        whole = ask(old, "slow", max_tokens=LONG)
        old_host = shared.host()
        shared.write(n_ctx=2048)
        with talking(old, "slow", LONG) as talk, shared.serving(COMMAND, "after") as after:
            with client(after.url) as new:
                assert ask(new, "hello") == "Hello world"
            assert talk.text() == whole
            # Who is with the old host stays with it: the two must not take turns.
            assert ask(old, "hello") == "Hello world"
            [new_host] = set(shared.hosts()) - {old_host}
            before.process.stop()
            until(lambda: not is_running(old_host), "the end of the old host")
            with client(after.url) as new:
                assert ask(new, "hello") == "Hello world"
            assert shared.hosts() == [new_host]


def test_a_reload_with_another_option_puts_another_host_in_the_place(
    models_dir: Path, tmp_path: Path
) -> None:
    with site(tmp_path, models_dir=str(models_dir), shared_grace_seconds=60.0) as shared:
        command = f"uvicorn --reload --reload-dir {tmp_path} --port {{port}} app:app"
        with shared.serving(command) as web:
            with client(web.url) as http:
                assert ask(http, "hello") == "Hello world"
            old_host = shared.host()
            shared.write(version="other", n_ctx=2048)
            until(lambda: web.version() == "other", "the new version of the app")
            # Nobody is connected with it, so it does not wait for its grace time.
            until(lambda: not is_running(old_host), "the end of the old host")
            with client(web.url) as http:
                assert ask(http, "hello") == "Hello world"
            assert shared.host() != old_host
        shared.stop_hosts()


def test_with_names_of_their_own_both_stay(models_dir: Path, tmp_path: Path) -> None:
    with (
        site(tmp_path, models_dir=str(models_dir), shared_name="red") as shared,
        shared.serving(COMMAND, "red") as red,
        client(red.url) as http,
    ):
        assert ask(http, "hello") == "Hello world"
        red_host = shared.host()
        shared.write(shared_name="blue", n_ctx=2048)
        with shared.serving(COMMAND, "blue") as blue, client(blue.url) as other:
            assert ask(other, "hello") == "Hello world"
            assert len(shared.model_workers()) == len(shared.hosts()) == 2
        until(lambda: shared.hosts() == [red_host], "the end of the host that has nobody left")
        assert ask(http, "hello") == "Hello world"


def test_what_keeps_the_host_from_starting_keeps_the_server_from_starting(
    models_dir: Path, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "cache"
    open_to_all.mkdir(mode=0o755)
    with (
        site(tmp_path, models_dir=str(models_dir), kv_cache_dir=str(open_to_all)) as shared,
        shared.started(COMMAND) as web,
    ):
        assert web.process.process.wait(START_SECONDS) != 0
        assert "option: kv_cache_dir: others can look into" in web.process.stderr
        assert "Application startup failed" in web.process.stderr
