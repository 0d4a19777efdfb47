"""Requests of all kinds, one after the other and side by side, leave nothing behind."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from statistics import linear_regression

import pytest

from llm_router_mw import wire
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    EmbedTask,
    FailureDelta,
    FinishDelta,
    Sampling,
    Task,
)
from tests.support.tiny_architectures import write_tiny
from tests.support.tiny_vocabulary import FIRST_PIECE
from tests.worker.process import WorkerProcess

SHORT, LONG = 600, 10_000
MAX_GROWTH_BYTES = {SHORT: 2048, LONG: 128}
"""Per request, by how many there are: pages that are touched for the first time count too.

A request that is forgotten holds thousands: its tokens, its sampler, its text.
"""
IN_FLIGHT = 8
N_TRIES = 3
N_SAMPLES = 40

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def resident_bytes(pid: int) -> int:
    """Return the memory of process *pid* that is not a mapped file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


class Customer:
    """Keeps a worker busy with requests that differ from each other, and takes their answers."""

    def __init__(self, worker: WorkerProcess, *, embeds: bool) -> None:
        self._worker = worker
        self._embeds = embeds
        self._random = random.Random(1)
        self._open: set[int] = set()
        self._submitted = 0
        self.done = 0
        self.reasons: set[str] = set()

    def serve(self, count: int) -> None:
        """Have *count* more requests answered; those still open are answered with later ones."""
        until = self.done + count
        while self.done < until:
            while len(self._open) < IN_FLIGHT:
                self._submit()
            for number, delta in self._worker.expect(wire.Step).deltas:
                self._take(number, delta)

    def _take(self, number: int, delta: object) -> None:
        assert not isinstance(delta, FailureDelta), delta
        if isinstance(delta, FinishDelta):
            self.reasons.add(delta.reason)
            self._open.discard(number)
            self.done += 1
        elif self._random.random() < 0.01:
            self._worker.send(wire.Cancel(number))
        else:
            self._worker.send(wire.Credit(number, 1))

    def _submit(self) -> None:
        self._submitted += 1
        self._open.add(self._submitted)
        self._worker.send(wire.Submit(self._submitted, self._task(), credit=4))

    def _task(self) -> Task:
        choose = self._random
        words = tuple(choose.randrange(FIRST_PIECE, 380) for _ in range(choose.randrange(1, 120)))
        if self._embeds:
            # As text: Python keeps thousands of freed tuples of each size, which looks like growth.
            text = " ".join(f"{word}" for word in words[:40])
            return EmbedTask(inputs=tuple(text[start:] for start in range(0, len(text), 60)))
        limit = choose.randrange(1, 16)
        sampling = Sampling(
            temperature=choose.choice((0.0, 1.0)),
            repeat_penalty=choose.choice((1.0, 1.1)),
            dry_multiplier=choose.choice((0.0, 0.5)),
            n_probs=choose.choice((0, 0, 3)),
            grammar=choose.choice(("", "", f'root ::= [a-z ]* "{self._submitted}"')),
        )
        if choose.random() < 0.3:
            said = " ".join(f"{word}" for word in words[:40])
            messages = ({"role": "user", "content": said},)
            return ChatTask(messages=messages, max_tokens=limit, sampling=sampling)
        return CompletionTask(
            prompt=words,
            max_tokens=limit,
            sampling=sampling,
            stop=("never", f"{self._submitted}"),
            cache_prompt=choose.random() < 0.8,
            cache_namespace=choose.choice(("", f"user {self._submitted}")),
            return_progress=choose.random() < 0.1,
        )


def growth(worker: WorkerProcess, customer: Customer, count: int) -> float:
    """Have *count* requests answered; return the bytes by which each made the process grow."""
    customer.serve(count // 2)  # caches fill, and the allocator finds its size
    places, sizes = [], []
    for _ in range(N_SAMPLES):
        customer.serve(count // 2 // N_SAMPLES)
        places.append(customer.done)
        sizes.append(resident_bytes(worker.process.pid))
    return linear_regression(places, sizes).slope


def is_steady(worker: WorkerProcess, customer: Customer, count: int) -> bool:
    """Whether nothing grows; a leak shows each time, the allocator's moods do not."""
    limit = MAX_GROWTH_BYTES[count]
    return any(growth(worker, customer, count) < limit for _ in range(N_TRIES))


@pytest.fixture(scope="module", params=["llama", "granitehybrid"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    return write_tiny(path, request.param)


@pytest.fixture(
    params=[SHORT, pytest.param(LONG, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def count(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def busy(worker: WorkerProcess) -> Iterator[WorkerProcess]:
    yield worker
    worker.send(wire.Stop())
    worker.rest()


def test_generating_does_not_grow(busy: WorkerProcess, model: Path, count: int) -> None:
    busy.load(model, n_ctx=512)
    customer = Customer(busy, embeds=False)
    assert is_steady(busy, customer, count)
    assert customer.reasons == {"stop", "length", "cancelled"}


def test_embedding_does_not_grow(busy: WorkerProcess, model: Path, count: int) -> None:
    busy.load(model, n_ctx=512, pooling="mean")
    customer = Customer(busy, embeds=True)
    assert is_steady(busy, customer, count)
    # Some are done before their cancel arrives; on a quick machine all of them.
    assert "stop" in customer.reasons
    assert customer.reasons <= {"stop", "cancelled"}
