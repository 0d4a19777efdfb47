"""Embeddings and scores: several inputs per step, each as a sequence of its own."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from time import perf_counter

from llm_router_mw.engine.context import Context
from llm_router_mw.engine.model import LoadedModel
from llm_router_mw.engine.native import log
from llm_router_mw.engine.outlet import Outlet
from llm_router_mw.engine.prompt import read_tokens
from llm_router_mw.engine.reranking import PairReader, not_a_reranker
from llm_router_mw.errors import InvalidRequestError, LLMRouterError, NotSupportedError
from llm_router_mw.types import (
    EmbeddingDelta,
    EmbedTask,
    FailureDelta,
    FinishDelta,
    FinishReason,
    Pooling,
    RerankTask,
    Task,
    Timings,
    Usage,
)


class _Embedding:
    """A request: its inputs as tokens, and how many of them are done."""

    def __init__(self, inputs: list[list[int]], length: int) -> None:
        self.outlet: Outlet
        """Where its vectors go, once it has joined."""
        self.inputs = inputs
        self.length = length
        """Values of each vector."""
        self.n_done = 0
        self._started_at = perf_counter()

    def finish(self, reason: FinishReason) -> FinishDelta:
        usage = Usage(prompt_tokens=sum(map(len, self.inputs)))
        seconds = perf_counter() - self._started_at
        return FinishDelta(reason, usage, Timings(prompt_seconds=seconds))


class EmbeddingLoop:
    """Packs as many inputs into a step as it has rows and sequences, first come, first served."""

    snapshots = None
    """Nothing that is computed here outlasts its request."""

    def __init__(self, context: Context, model: LoadedModel, pooling: Pooling) -> None:
        self._context = context
        self._vocab = model.vocab
        self._pairs = PairReader(model)
        self._pooling = pooling
        self._length = model.n_scores if pooling == "rank" else model.n_embd
        self._max_rows = min(context.n_batch, context.n_ctx)
        self._max_tokens = min(self._max_rows, model.n_ctx_train)
        self._requests: list[_Embedding] = []

    def prepare(self, task: Task) -> _Embedding:
        """Return *task* as a request that can join; from any thread.

        Raises:
            RequestError: it cannot be served as it is.
        """
        if isinstance(task, RerankTask):
            return self._rerank(task)
        if isinstance(task, EmbedTask):
            return self._embed(task)
        raise NotSupportedError(
            "this model is loaded for embeddings and does not generate text; remove its load "
            "option pooling, or ask another model"
        )

    def join(self, request: _Embedding, outlet: Outlet) -> None:
        """Put *request* in line; its vectors go to *outlet*."""
        request.outlet = outlet
        self._requests.append(request)

    def drop(self, request: _Embedding) -> None:
        """Nothing is held for a request that does not join."""

    def _rerank(self, task: RerankTask) -> _Embedding:
        if self._pooling != "rank":
            raise not_a_reranker()
        if not task.documents:
            raise InvalidRequestError(
                "documents is empty; send at least one text", param="documents"
            )
        parse = self._pairs.parses
        self._check_least("the query", task.query, "query", parse=parse)
        pairs = []
        for index, document in enumerate(task.documents):
            what = f"document {index} with the query"
            self._check_least(what, document, "documents", parse=parse)
            pairs.append(self._pairs.read(task.query, document))
            self._check(what, pairs[-1], "documents")
        return _Embedding(pairs, 1)

    def _embed(self, task: EmbedTask) -> _Embedding:
        if self._pooling == "none":
            raise InvalidRequestError(
                "Pooling type 'none' is not OAI compatible. Please use a different pooling type"
            )
        if not task.inputs:
            raise InvalidRequestError("input is empty; send at least one text", param="input")
        length = self._length if task.dimensions is None else task.dimensions
        if not 1 <= length <= self._length:
            raise InvalidRequestError(
                f"dimensions is {length}; this model's vectors have 1 to {self._length}",
                param="dimensions",
            )
        inputs = [self._read(index, given) for index, given in enumerate(task.inputs)]
        return _Embedding(inputs, length)

    def _read(self, index: int, given: str | Sequence[int]) -> list[int]:
        if isinstance(given, str):
            self._check_least(f"input {index}", given, "input")
        tokens = read_tokens(self._vocab, given, "input")
        self._check(f"input {index}", tokens if given else [], "input")
        return tokens

    def _check(self, what: str, tokens: list[int], param: str) -> None:
        """Check that *tokens* fit a batch."""
        if not tokens:
            raise InvalidRequestError(f"{what} is empty; send some text", param=param)
        if len(tokens) > self._max_tokens:
            raise self._too_long(f"{what} has {len(tokens)}", param)

    def _check_least(self, what: str, text: str, param: str, *, parse: bool = True) -> None:
        """Refuse, before it is tokenised, a text that cannot fit a batch."""
        least = self._vocab.least_tokens(text, self._max_tokens, parse=parse)
        if least:
            raise self._too_long(f"{what} has at least {least}", param)

    def _too_long(self, what: str, param: str) -> InvalidRequestError:
        return InvalidRequestError(
            f"{what} tokens, and this model takes {self._max_tokens} at once; shorten it, or raise "
            "the load options n_batch and n_ctx",
            param=param,
        )

    def cancel(self, outlet: Outlet) -> FinishDelta:
        """Take the request of *outlet*, which has not ended, out; return its finish."""
        request = next(request for request in self._requests if request.outlet is outlet)
        self._requests.remove(request)
        return request.finish("cancelled")

    def step(self) -> bool:
        """Compute one batch; return False if there was nothing that could go on."""
        packed = self._pack()
        if not packed:
            return False
        code = self._context.compute()
        if code != 0:
            self._fail(packed, code)
            return True
        for sequence, (request, index) in enumerate(packed):
            vector = self._vector(sequence, request.length)
            request.n_done += 1
            request.outlet.write([EmbeddingDelta(index, vector)])
            if request.n_done == len(request.inputs):
                self._requests.remove(request)
                request.outlet.end(request.finish("stop"))
            request.outlet.flush()
        self._forget(len(packed))
        return True

    def close(self) -> None:
        """Forget all requests."""
        self._requests.clear()

    def _pack(self) -> list[tuple[_Embedding, int]]:
        """Fill the batch; return the request and the index of each sequence's input."""
        context = self._context
        context.clear()
        packed: list[tuple[_Embedding, int]] = []
        for request in self._requests:
            start = request.n_done
            for index in range(start, min(len(request.inputs), start + request.outlet.room)):
                tokens = request.inputs[index]
                full = context.n_rows + len(tokens) > self._max_rows
                if full or len(packed) == context.n_parallel:
                    return packed
                context.add(tokens, 0, len(packed), len(tokens))
                packed.append((request, index))
        return packed

    def _vector(self, sequence: int, length: int) -> bytes:
        values = self._context.embedding(sequence, length)
        if self._pooling != "rank":
            norm = math.sqrt(math.fsum(value * value for value in values)) or 1.0
            values = [value / norm for value in values]
        return struct.pack(f"<{len(values)}f", *values)

    def _fail(self, packed: list[tuple[_Embedding, int]], code: int) -> None:
        message = f"llama.cpp could not compute the embeddings (code {code}): {log.last_errors()}"
        for request in dict(packed):
            self._requests.remove(request)
            request.outlet.end(FailureDelta(LLMRouterError(message).to_failure()))
            request.outlet.flush()
        self._forget(len(packed))

    def _forget(self, n_sequences: int) -> None:
        for sequence in range(n_sequences):
            self._context.remove(sequence)
