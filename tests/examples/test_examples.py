"""Each example runs as its docstring says, answers, and leaves no process behind."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.answers import ask, ask_streamed, client, model_ids
from tests.support.processes import ServerProcess, free_port, server_process, until
from tests.support.shared_site import END_SECONDS, hosts_in

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_LINES = 45


def documented_command(example: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command of the docstring's ``Run:`` line, moved to *port*, and its variables."""
    docstring = ast.get_docstring(ast.parse(example.read_text())) or ""
    match = re.search(r"^Run: +(.+)$", docstring, re.MULTILINE)
    assert match, f"{example.name} does not say how to run it"
    words = shlex.split(match[1].replace("8080", str(port)))
    env = {"PORT": str(port)}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    program, *arguments = words
    return [str(Path(sys.executable).parent / program), *arguments], env


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(example: Path, port: int, demo_models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    command, env = documented_command(example, port)
    env |= {"MODELS_DIR": str(demo_models), "GRACE_SECONDS": "0.5"}
    with server_process(command, tmp_path, env=env, cwd=ROOT) as process:
        process.wait_for_answer(f"http://127.0.0.1:{port}/v1/models")
        yield process


@pytest.fixture
def http(server: ServerProcess, example: Path, port: int) -> Iterator[httpx.Client]:
    mounted = example.stem == "mounted_app"
    headers = {"X-User": "me"} if mounted else {}
    with client(f"http://127.0.0.1:{port}{'/llm' * mounted}", headers=headers) as connected:
        yield connected


def check_own_page(example: str, http: httpx.Client) -> None:
    """Ask the page that the example itself answers."""
    if example == "uvicorn_server":
        assert http.get("/").text == "Hello from the app.\n"
    elif example == "starlette_app":
        reply = http.post("/summarise/guide", content="What is a lease?")
        assert reply.json()["summary"]
        assert reply.json()["tokens"] > 0
        assert http.post("/summarise/nobody", content="Hi").status_code == 404
    elif example == "fastapi_app":
        assert http.get("/tell/guide", params={"question": "What is a lease?"}).text
        assert http.get("/tell/nobody", params={"question": "Hi"}).status_code == 404
    elif example == "lifespan_app":
        answers = [http.get("/ask/guide", params={"question": "Hi"}).json() for _ in range(2)]
        assert all(reply["answer"] for reply in answers)
        assert [reply["notes"] for reply in answers] == [3, 4]
        assert http.get("/ask/nobody", params={"question": "Hi"}).status_code == 404
    elif example in ("flask_app", "litestar_app", "quart_app", "django_asgi", "django_wsgi"):
        reply = http.get("/ask/guide", params={"question": "What is a lease?"})
        assert reply.json()["answer"]
        assert http.get("/ask/nobody", params={"question": "Hi"}).status_code == 404
    elif example == "wsgi_app":
        assert http.get("/guide?What+is+a+lease").text
        assert http.get("/nobody?Hi").status_code == 404
    elif example == "shared_app":
        asked = {"question": "What is a lease?"}
        answers = [http.get("/ask/guide", params=asked).json() for _ in range(2)]
        assert all(each["answer"] and each["answered_by"] for each in answers)
        assert http.get("/ask/nobody", params=asked).status_code == 404
        assert http.get("/loaded").json()["guide"] == "loaded"
        assert len(hosts_in(ROOT)) == 1
    elif example == "mounted_app":
        root = http.base_url.copy_with(path="/")
        assert http.get(root).text == "Hello from the app."
        del http.headers["X-User"]
        assert http.get("/v1/models").status_code == 401
    else:
        pytest.fail(f"say here what {example} answers")


def test_it_answers_and_leaves_nothing_behind(
    example: Path, server: ServerProcess, http: httpx.Client
) -> None:
    assert model_ids(http) == {"guide", "companion"}
    assert ask(http, "guide")
    assert len(ask_streamed(http, "companion")) > 1
    check_own_page(example.stem, http)
    assert server.workers(), "no worker process was seen: the check below would be worth nothing"
    server.stop()
    until(lambda: not hosts_in(ROOT), "the end of the shared host", END_SECONDS)
    assert "Traceback" not in server.stderr


def test_it_is_short(example: Path) -> None:
    assert len(example.read_text().splitlines()) <= MAX_LINES
