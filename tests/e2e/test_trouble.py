"""What goes wrong in real life: bad requests, bad files, clients that leave, workers that die."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.answers import ask, ask_streamed, chat_body, client, data_lines
from tests.support.processes import ServerProcess, free_port, server_process, until
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def server(models_dir: Path) -> Iterator[Served]:
    with served(models_dir=models_dir, models_max=2) as running:
        yield running


@pytest.fixture(scope="module")
def broken(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("broken")
    make_broken_files(models_dir, folder)
    models = {"missing": folder / "nowhere.gguf"}
    with served(models_dir=folder, models=models, models_max=1) as running:
        yield running


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert len(error["message"]) > 10
    return error


class TestBadRequests:
    @pytest.mark.parametrize(
        ("body", "status", "param"),
        [
            pytest.param(b"{not json", 400, None, id="malformed JSON"),
            pytest.param(b'{"model": "\xff"}', 400, None, id="invalid UTF-8"),
            pytest.param(b"[]", 400, None, id="not an object"),
            pytest.param(chat_body("a", max_tokens="many"), 400, "max_tokens", id="a wrong type"),
            pytest.param(chat_body("a", messages="hi"), 400, "messages", id="messages as text"),
            pytest.param(chat_body("a", messages=[]), 400, "messages", id="no messages"),
            pytest.param(chat_body("a", max_tokens=0), 400, "max_tokens", id="no tokens"),
            pytest.param(chat_body("a", max_tokens=-5), 400, "max_tokens", id="fewer than none"),
            pytest.param(
                chat_body("a", temperature=-1), 400, "temperature", id="below absolute zero"
            ),
            pytest.param({"messages": []}, 400, "model", id="no model"),
            pytest.param(chat_body("nobody"), 404, None, id="an unknown model"),
        ],
    )
    def test_it_is_refused_with_a_sentence(
        self, server: Served, body: bytes | dict[str, Any], status: int, param: str | None
    ) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = server.http.post("/v1/chat/completions", content=content)
        assert response.status_code == status
        assert error_of(response)["param"] == param or param is None

    @pytest.mark.parametrize("stream", [False, True])
    def test_a_prompt_longer_than_the_context_is_refused(
        self, server: Served, stream: bool
    ) -> None:
        body = chat_body("a", messages=[{"role": "user", "content": "x " * 4000}], stream=stream)
        response = server.http.post("/v1/chat/completions", json=body)
        assert response.status_code == 400
        error = error_of(response)
        assert error["type"] == "exceed_context_size_error"
        assert error["n_ctx"] == 1024
        assert error["n_prompt_tokens"] > 1024

    def test_the_others_go_on(self, server: Served) -> None:
        assert ask(server.http, "hello") == "Hello world"


class TestBadFiles:
    @pytest.mark.parametrize(
        "name",
        ["text", "empty", "truncated", "cut-header", "lying", "loop", "missing"],
    )
    def test_a_file_that_is_no_model_is_the_clients_to_know(
        self, broken: Served, name: str
    ) -> None:
        response = broken.http.post("/v1/chat/completions", json=chat_body(name))
        assert 400 <= response.status_code < 500, response.text
        assert error_of(response)["message"]

    def test_it_evicts_nobody_and_the_others_go_on(self, broken: Served) -> None:
        assert ask(broken.http, "good") == "Hello world"
        broken.http.post("/v1/chat/completions", json=chat_body("truncated"))
        assert broken.view("good").status == "loaded"

    def test_a_model_that_llama_cpp_refuses_is_a_load_failure(self, broken: Served) -> None:
        response = broken.http.post("/v1/chat/completions", json=chat_body("alien"))
        assert response.status_code == 502
        assert "alien" in error_of(response)["message"]
        again = broken.http.post("/v1/chat/completions", json=chat_body("alien"))
        assert again.status_code == 503
        assert int(again.headers["Retry-After"]) > 0


def make_broken_files(models_dir: Path, folder: Path) -> None:
    """Write ``good``, and files that cannot be used, each for a reason of its own."""
    whole = (models_dir / "hello.gguf").read_bytes()
    lying = bytearray(whole)
    lying[8:16] = (2**63).to_bytes(8, "little")  # the number of tensors
    contents = {
        "good": whole,
        "text": b"This is not a model.",
        "empty": b"",
        "truncated": whole[:-4096],
        "cut-header": whole[:200],
        "lying": bytes(lying),
        # Well-formed, of an architecture that does not exist.
        "alien": whole.replace(b"llama", b"alien"),
    }
    for name, content in contents.items():
        (folder / f"{name}.gguf").write_bytes(content)
    # Can't be opened, even by root.
    (folder / "loop.gguf").symlink_to("loop.gguf")


class TestClients:
    def test_one_that_leaves_frees_its_lease(self, server: Served) -> None:
        body = chat_body("slow", max_tokens=900, stream=True)
        with server.http.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = data_lines(stream)  # must live: when it is collected, httpx hangs up
            next(lines)
            assert server.view("slow").leases == 1
        server.until(lambda s: s.view("slow").leases == 0, "the end of the lease", 2)

    def test_one_that_leaves_while_it_waits_is_forgotten(self, models_dir: Path) -> None:
        with served(models_dir=models_dir, models_max=1) as server, ThreadPoolExecutor(1) as pool:
            busy = chat_body("slow", max_tokens=900, stream=True)
            with server.http.stream("POST", "/v1/chat/completions", json=busy) as stream:
                lines = data_lines(stream)
                next(lines)
                impatient = pool.submit(
                    httpx.post,
                    f"{server.url}/v1/chat/completions",
                    json=chat_body("b"),
                    timeout=0.5,
                    trust_env=False,
                )
                server.until(lambda s: s.view("b").waiting == 1, "a request that waits")
                with pytest.raises(httpx.ReadTimeout):
                    impatient.result()
                server.until(lambda s: s.view("b").waiting == 0, "the request to leave", 2)
            server.until(lambda s: s.view("slow").leases == 0, "the end of the lease", 2)
            assert server.view("b").status == "unloaded"

    def test_one_that_stops_reading_cannot_hold_an_instance(self, models_dir: Path) -> None:
        with served(
            models_dir=models_dir,
            models_max=1,
            n_ctx=8192,
            client_stall_seconds=0.5,
            send_buffer=4096,
        ) as server:
            body = json.dumps(chat_body("a", max_tokens=8000, stream=True)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            with socket.socket() as stalled:
                stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stalled.connect(("127.0.0.1", server.port))
                stalled.sendall(head.encode() + b"\r\n\r\n" + body)
                server.until(lambda s: s.view("a").leases == 1, "the lease")
                server.until(lambda s: s.view("a").leases == 0, "the end of the lease")
                # The room is free for others while the connection is still open.
                assert ask(server.http, "b", max_tokens=4)

    def test_a_slow_one_is_served_to_the_end(self, models_dir: Path) -> None:
        with served(models_dir=models_dir, n_ctx=8192) as server:
            body = chat_body("a", max_tokens=1500, stream=True)
            with server.http.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = list(data_lines(stream))
            assert lines[-1] == "data: [DONE]"
            text = "".join(
                json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
                for line in lines[:-1]
            )
            assert text == ask(server.http, "a", max_tokens=1500)


class TestWorkers:
    def test_a_killed_worker_ends_its_streams_and_no_others(self, models_dir: Path) -> None:
        with served(models_dir=models_dir, n_ctx=8192) as server, ThreadPoolExecutor(1) as pool:
            neighbour = pool.submit(ask_streamed, server.http, "b", max_tokens=2000)
            body = chat_body("a", max_tokens=8000, stream=True)
            with server.http.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = data_lines(stream)
                next(lines)
                os.kill(server.worker_pid("a"), signal.SIGKILL)
                last = [line for line in lines if line][-1]
            error = json.loads(last.removeprefix("data: "))["error"]
            assert error["code"] == "worker_died"
            assert "SIGKILL" in error["message"]
            assert len("".join(neighbour.result())) > 1000
            assert ask(server.http, "a", max_tokens=4)

    def test_a_worker_killed_before_its_first_word_is_a_plain_error(self, models_dir: Path) -> None:
        with served(models_dir=models_dir, n_ctx=8192) as server, ThreadPoolExecutor(1) as pool:
            ask(server.http, "a", max_tokens=1)
            pid = server.worker_pid("a")
            os.kill(pid, signal.SIGSTOP)
            body = chat_body("a", max_tokens=5)
            doomed = pool.submit(server.http.post, "/v1/chat/completions", json=body)
            server.until(lambda s: s.view("a").leases == 1, "the lease")
            os.kill(pid, signal.SIGKILL)
            assert doomed.result().status_code == 502

    def test_workers_see_no_secrets(
        self, models_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_API_TOKEN", "secret-token-value")
        with served(models_dir=models_dir) as server:
            ask(server.http, "hello")
            environ = Path(f"/proc/{server.worker_pid('hello')}/environ").read_bytes()
        assert b"secret-token-value" not in environ

    def test_workers_import_neither_a_web_framework_nor_a_plugin_manager(
        self, server: Served
    ) -> None:
        ask(server.http, "hello")
        mapped = Path(f"/proc/{server.worker_pid('hello')}/maps").read_text()
        assert "libllama" in mapped
        code = (
            "import sys, llm_router_mw.worker.child\n"
            "print(sorted({'starlette', 'pluggy', 'uvicorn', 'click'} & set(sys.modules)))"
        )
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        assert printed.strip() == "[]"


class TestTheEnd:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_stops_everything(self, models_dir: Path, tmp_path: Path, number: int) -> None:
        with running_server(models_dir, tmp_path) as (server, http):
            ask(http, "hello")
            assert server.workers()
            assert server.stop(number) == 0

    def test_a_signal_ends_streams_in_time(self, models_dir: Path, tmp_path: Path) -> None:
        with running_server(models_dir, tmp_path) as (server, http):
            body = chat_body("a", max_tokens=8000, stream=True)
            with http.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = data_lines(stream)
                next(lines)
                assert server.stop() == 0

    def test_a_killed_server_leaves_no_worker(self, models_dir: Path, tmp_path: Path) -> None:
        with running_server(models_dir, tmp_path) as (server, http):
            body = chat_body("a", max_tokens=8000, stream=True)
            with http.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = data_lines(stream)
                next(lines)
                below = server.workers()
                assert below
                server.process.kill()
                until(lambda: not any(map(alive, below)), f"the end of {below}", 10)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def running_server(models_dir: Path, folder: Path) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    """Run ``llm-router-mw serve`` as a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "llm_router_mw.cli", "serve", "--port", str(port)]
    command += ["--models-dir", str(models_dir), "-t", "1", "-c", "8192"]
    with server_process(command, folder) as server:
        server.wait_for_answer(f"http://127.0.0.1:{port}/health")
        with client(f"http://127.0.0.1:{port}") as http:
            yield server, http
