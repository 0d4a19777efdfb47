"""Frames: every message survives the pipe, in whatever portions it comes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router_mw import wire
from llm_router_mw.errors import WireError
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    EmbeddingDelta,
    EmbedTask,
    Failure,
    FailureDelta,
    FinishDelta,
    LoadOptions,
    ModelInfo,
    Placement,
    Sampling,
    Timings,
    Usage,
)

INFO = ModelInfo(
    n_ctx=1,
    n_ctx_train=2,
    n_vocab=3,
    n_embd=4,
    n_params=5,
    size_bytes=6,
    n_parallel=7,
    load_seconds=0.5,
    description="llama",
)
FAILURE = Failure(kind="ModelLoadError", message="no", fields={"param": "prompt", "n": 1})
TO_WORKER: list[wire.ToWorker] = [
    wire.Hello(1, "0.1"),
    wire.Load("/m.gguf", LoadOptions(n_ctx=9, pooling="mean"), {"a": "b:C"}, {"X": "1"}),
    wire.Submit(1, ChatTask(messages=({"role": "user", "content": "é"},), stop=("x",))),
    wire.Submit(2, CompletionTask(prompt="p", sampling=Sampling(seed=2**40)), 9),
    wire.Submit(3, CompletionTask(prompt=(1, 2), max_tokens=3)),
    wire.Submit(4, EmbedTask(inputs=("a", (1, 2)))),
    wire.Load("/m.gguf", LoadOptions(), {}, {}, Placement(devices=("GPU-1",), tensor_split=(1.0,))),
    wire.Credit(1, 5),
    wire.Cancel(1),
    wire.Sleep("context"),
    wire.Wake(),
    wire.Stop(),
]
TO_ROUTER: list[wire.ToRouter] = [
    wire.Ready(1, "0.1", 42),
    wire.Progress(0.25),
    wire.Loaded(INFO),
    wire.LoadFailed(FAILURE),
    wire.Slept(0.5, 100, 900),
    wire.Slept(0.5, None, None),
    wire.SleepFailed(FAILURE),
    wire.Alive(),
    wire.Step(
        [
            (1, ContentDelta("€")),
            (2, EmbeddingDelta(0, b"\0\xff")),
            (1, FinishDelta("stop", Usage(prompt_tokens=1), Timings(prompt_seconds=0.1))),
            (2, FailureDelta(FAILURE)),
        ]
    ),
]


def test_every_message_to_the_worker_survives() -> None:
    data = b"".join(map(wire.encode, TO_WORKER))
    assert list(wire.worker_decoder().feed(data)) == TO_WORKER


def test_every_message_to_the_router_survives() -> None:
    data = b"".join(map(wire.encode, TO_ROUTER))
    assert list(wire.router_decoder().feed(data)) == TO_ROUTER


@given(st.lists(st.integers(1, 40), min_size=1))
def test_portions_do_not_matter(sizes: list[int]) -> None:
    data = b"".join(map(wire.encode, TO_ROUTER))
    decoder = wire.router_decoder()
    found: list[wire.ToRouter] = []
    start = 0
    while start < len(data):
        for size in sizes:
            found += decoder.feed(data[start : start + size])
            start += size
    assert found == TO_ROUTER


def test_a_message_that_the_other_side_should_send_is_refused() -> None:
    with pytest.raises(WireError, match="not a known message"):
        list(wire.worker_decoder().feed(wire.encode(wire.Progress(0.5))))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"hello", msgspec.msgpack.encode({"type": "x"})])
def test_a_body_that_is_no_message_is_refused(body: bytes) -> None:
    frame = len(body).to_bytes(4, "little") + body
    with pytest.raises(WireError, match="not a known message"):
        list(wire.router_decoder().feed(frame))


def test_a_length_beyond_the_limit_is_refused_at_once() -> None:
    prefix = (wire.MAX_FRAME_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(WireError, match="out of step"):
        list(wire.router_decoder().feed(prefix))


def test_less_is_taken_of_who_is_not_known() -> None:
    decoder = wire.router_decoder()
    decoder.max_frame_bytes = 10
    with pytest.raises(WireError, match="announces 11 bytes"):
        list(decoder.feed((11).to_bytes(4, "little")))


def test_a_message_beyond_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 10)
    with pytest.raises(WireError, match="over the limit of 10"):
        wire.encode(wire.Hello(1, "a long version"))
