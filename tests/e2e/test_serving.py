"""The whole way: a real server, real workers, real clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from llm_router_mw.router.client import WorkerClient
from llm_router_mw.wire import Step, ToRouter
from tests.support.answers import ask, ask_streamed, chat_body, data_lines, model_ids
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def server(models_dir: Path) -> Iterator[Served]:
    models = {"embed": {"path": models_dir / "bert.gguf", "pooling": "mean", "n_ctx": 512}}
    with served(models_dir=models_dir, models=models, models_max=3) as running:
        yield running


def test_a_chat_is_answered(server: Served) -> None:
    assert ask(server.http, "hello") == "Hello world"


def test_a_streamed_chat_comes_in_pieces(server: Served) -> None:
    pieces = ask_streamed(server.http, "a", max_tokens=20)
    assert len(pieces) > 3
    assert "".join(pieces) == ask(server.http, "a", max_tokens=20)


def test_usage_counts_tokens_and_the_reason_is_true(server: Served) -> None:
    body = chat_body("a", max_tokens=7)
    answer = server.http.post("/v1/chat/completions", json=body).json()
    assert answer["usage"]["completion_tokens"] == 7
    assert answer["choices"][0]["finish_reason"] == "length"
    answer = server.http.post("/v1/chat/completions", json=chat_body("hello")).json()
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_prompt_is_completed(server: Served) -> None:
    body = {"model": "a", "prompt": "Once upon", "max_tokens": 5, "temperature": 0}
    answer = server.http.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] == 5


def test_texts_are_embedded(server: Served) -> None:
    body = {"model": "embed", "input": ["one", "another text"]}
    answer = server.http.post("/v1/embeddings", json=body).json()
    assert [item["index"] for item in answer["data"]] == [0, 1]
    for item in answer["data"]:
        assert sum(value * value for value in item["embedding"]) == pytest.approx(1, abs=1e-3)


def test_a_model_without_pooling_refuses_to_embed(server: Served) -> None:
    answer = server.http.post("/v1/embeddings", json={"model": "a", "input": "x"})
    assert answer.status_code == 501
    assert "pooling" in answer.json()["error"]["message"]


def test_the_official_client_is_served(server: Served) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        assert {model.id for model in client.models.list()} >= {"a", "b", "embed"}
        question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]
        whole = client.chat.completions.create(model="hello", messages=question)
        assert whole.choices[0].message.content == "Hello world"
        stream = client.chat.completions.create(
            model="hello",
            messages=question,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Hello world"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens > 0
        vectors = client.embeddings.create(model="embed", input=["x"])
        assert len(vectors.data[0].embedding) == 32
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=question)


def test_eight_streams_share_one_context_and_its_batches(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    take = WorkerClient._take

    def count(client: WorkerClient, message: ToRouter) -> None:
        if isinstance(message, Step):
            together.append(len({request for request, _ in message.deltas}))
        take(client, message)

    monkeypatch.setattr(WorkerClient, "_take", count)
    with served(models_dir=models_dir, n_parallel=8, n_ctx=4096) as server:
        alone = ask(server.http, "a", max_tokens=150)
        with ThreadPoolExecutor(8) as pool:
            # On a busy machine the first may be over before the last begins.
            while max(together) < 8 and len(together) < 10_000:
                futures = [
                    pool.submit(ask_streamed, server.http, "a", max_tokens=150) for _ in range(8)
                ]
                answers = ["".join(future.result()) for future in futures]
                assert answers == [alone] * 8
        assert sum(view.status == "loaded" for view in server.router.models()) == 1
    assert max(together) == 8, "one step gave each of them a token"


def test_with_one_slot_the_second_model_evicts_the_first(models_dir: Path) -> None:
    with served(models_dir=models_dir, models_max=1) as server:
        ask(server.http, "a")
        assert server.view("a").status == "loaded"
        ask(server.http, "b")
        assert server.view("b").status == "loaded"
        assert server.view("a").status == "unloaded"


def test_a_busy_model_is_not_evicted_and_the_other_request_waits(models_dir: Path) -> None:
    with served(models_dir=models_dir, models_max=1) as server, ThreadPoolExecutor(1) as pool:
        body = chat_body("a", max_tokens=400, stream=True)
        with server.http.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = data_lines(stream)
            next(lines)
            other = pool.submit(ask, server.http, "b", max_tokens=4)
            server.until(lambda s: s.view("b").waiting == 1, "a request that waits")
            assert server.view("a").leases == 1
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert other.result()


def test_the_app_keeps_its_own_paths(server: Served) -> None:
    for path in ("/health", "/metrics", "/models"):
        assert server.http.get(path).text == "the app's own"
    assert server.http.get("/v1x").status_code == 404


def test_models_are_listed_with_their_state(server: Served) -> None:
    ask(server.http, "a")
    assert model_ids(server.http) == {"a", "b", "slow", "hello", "bert", "embed"}
    listed = {model["id"]: model for model in server.http.get("/v1/models").json()["data"]}
    assert listed["a"]["status"]["value"] == "loaded"
    assert listed["a"]["meta"]["n_ctx_train"] == 8192
    assert listed["bert"]["status"]["value"] == "unloaded"


def test_management_where_it_was_asked_for(models_dir: Path) -> None:
    door = {"routes": ("inference", "management"), "admin_keys": ("secret",)}
    with served(models_dir=models_dir, door=door) as server:
        assert server.http.get("/health").json() == {"status": "ok"}
        assert server.http.post("/models/load", json={"model": "a"}).status_code == 401
        server.http.headers["Authorization"] = "Bearer secret"
        with server.http.stream("GET", "/models/sse") as events:
            lines = (line for line in events.iter_lines() if line)
            first = json.loads(next(lines).removeprefix("data: "))
            assert first["model"] in {"a", "b", "hello", "bert", "*"}
            loaded = server.http.post("/models/load", json={"model": "a"})
            assert loaded.json() == {"success": True}
            for line in lines:
                event = json.loads(line.removeprefix("data: "))
                if event["model"] == "a" and event["data"].get("status") == "loaded":
                    break
        assert server.view("a").status == "loaded"
        assert server.http.post("/models/unload", json={"model": "a"}).json() == {"success": True}
        server.until(lambda s: s.view("a").status == "unloaded", "the unload")


def test_a_second_server_on_the_same_files_is_independent(server: Served, models_dir: Path) -> None:
    with served(models_dir=models_dir) as other:
        assert ask(other.http, "a") == ask(server.http, "a")
        assert other.worker_pid("a") != server.worker_pid("a")


def test_seeds_repeat_and_differ(server: Served) -> None:
    hot = {"temperature": 1.5, "max_tokens": 30}
    first = ask(server.http, "a", seed=1, **hot)
    assert ask(server.http, "a", seed=1, **hot) == first
    assert ask(server.http, "a", seed=2, **hot) != first


def test_stop_strings_end_the_answer(server: Served) -> None:
    body = chat_body("hello", stop=["wor"])
    answer = server.http.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == "Hello "
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_keys_are_asked_for(models_dir: Path) -> None:
    with served(models_dir=models_dir, door={"api_keys": ("one", "two")}) as server:
        assert server.http.get("/v1/models").status_code == 401
        good = server.http.get("/v1/models", headers={"Authorization": "Bearer two"})
        assert good.status_code == 200
        bad = httpx.get(f"{server.url}/v1/models", headers={"X-Api-Key": "no"}, trust_env=False)
        assert bad.json()["error"]["type"] == "authentication_error"
