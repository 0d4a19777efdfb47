"""Continuous batching: requests join and leave the shared context at every step."""

from __future__ import annotations

import logging
from bisect import insort
from heapq import heapify, heappop, heappush
from itertools import count

from llm_router_mw.engine.context import Context
from llm_router_mw.engine.generation import NOT_RUNNING, Generation
from llm_router_mw.engine.native import log
from llm_router_mw.engine.outlet import Outlet
from llm_router_mw.engine.prompt import PromptReader
from llm_router_mw.engine.sampler import Sampler
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import (
    ContextExceededError,
    InvalidRequestError,
    LLMRouterError,
    NotSupportedError,
)
from llm_router_mw.types import EmbedTask, FailureDelta, FinishDelta, Task

logger = logging.getLogger("llm_router_mw.engine")

_ROOM_TO_GROW = 16
"""Cells per running request that admission leaves free, or newcomers would be thrown out again."""
_MAX_FAILED_STEPS = 3
_NO_ROOM = 1


class EngineBrokenError(Exception):
    """llama.cpp failed several times in a row; this process is no good any more."""


class GenerationLoop:
    """Decodes all running requests together, one batch per step.

    The cells of the context are shared. A request occupies one per token; when they run out, the
    youngest request gives its cells back and later computes them again: its text, its sampler and
    its place in the line stay, so nothing is lost and the oldest always gets on.
    """

    def __init__(self, context: Context, vocab: Vocab, prompts: PromptReader) -> None:
        self._context = context
        self._vocab = vocab
        self._prompts = prompts
        self._arrivals = count()
        # Both in order of arrival.
        self._waiting: list[Generation] = []
        self._running: list[Generation] = []
        self._free = list(range(context.n_parallel))
        heapify(self._free)
        self._failed_steps = 0

    def start(self, task: Task, outlet: Outlet) -> None:
        """Put *task* in line.

        Raises:
            RequestError: it cannot be served as it is.
        """
        if isinstance(task, EmbedTask):
            raise NotSupportedError(
                "this model does not support embeddings as it is loaded; set its load option "
                "pooling ('mean', 'cls' or 'last') to make it an embedding model"
            )
        if task.max_tokens is not None and task.max_tokens < 1:
            raise InvalidRequestError("max_tokens must be at least 1", param="max_tokens")
        prompt = self._prompts.read(task)
        n_prompt, n_ctx = len(prompt.tokens), self._context.n_ctx
        if n_prompt >= n_ctx:
            raise ContextExceededError(
                f"request ({n_prompt} tokens) exceeds the available context size "
                f"({n_ctx} tokens), try increasing it",
                n_prompt_tokens=n_prompt,
                n_ctx=n_ctx,
            )
        sampler = Sampler(task.sampling)
        self._waiting.append(
            Generation(next(self._arrivals), prompt, sampler, task.max_tokens, outlet)
        )

    def cancel(self, outlet: Outlet) -> FinishDelta:
        """Take the request of *outlet*, which has not ended, out; return its finish."""
        everyone = (*self._running, *self._waiting)
        generation = next(candidate for candidate in everyone if candidate.outlet is outlet)
        self._leave(generation)
        return generation.finish("cancelled")

    def step(self) -> bool:
        """Decode one batch; return False if there was nothing that could go on."""
        self._make_room()
        self._admit()
        plan = self._plan()
        if not plan:
            return False
        rows = self._fill(plan)
        code = self._context.compute()
        if code == 0:
            self._failed_steps = 0
            for (generation, size), row in zip(plan, rows, strict=True):
                generation.n_past += size
                if generation.n_pending == 0:
                    self._advance(generation, row)
        elif code == _NO_ROOM and len(self._running) > 1:
            self._preempt()
        else:
            self._fail([generation for generation, _ in plan], code)
        return True

    def close(self) -> None:
        """Free what the requests hold."""
        for generation in (*self._running, *self._waiting):
            self._leave(generation)

    @property
    def _n_used(self) -> int:
        """Cells that the running requests hold, or will when their tokens are computed."""
        return sum(len(generation.tokens) for generation in self._running)

    def _make_room(self) -> None:
        # One alone never exceeds the context: it ends when it reaches its size.
        while self._n_used > self._context.n_ctx:
            self._preempt()

    def _preempt(self) -> None:
        """Send a running request back into the line; rather one that stands still anyway."""
        stalled = [generation for generation in self._running if generation.stalled]
        victim = (stalled or self._running)[-1]
        self._release(victim)
        insort(self._waiting, victim, key=lambda generation: generation.arrival)

    def _admit(self) -> None:
        """Start waiting requests in their order, as long as their tokens and some more fit."""
        if not self._free:
            return
        for generation in [waiting for waiting in self._waiting if not waiting.stalled]:
            if not self._free or not self._fits(generation):
                return
            self._waiting.remove(generation)
            generation.start(heappop(self._free))
            insort(self._running, generation, key=lambda running: running.arrival)

    def _fits(self, generation: Generation) -> bool:
        if not self._running:
            return True
        growth = _ROOM_TO_GROW * (len(self._running) + 1)
        return self._n_used + len(generation.tokens) + growth <= self._context.n_ctx

    def _plan(self) -> list[tuple[Generation, int]]:
        """Return who takes part in this step with how many tokens, sorted by sequence."""
        ready = [generation for generation in self._running if not generation.stalled]
        budget = self._context.n_batch - sum(generation.n_pending == 1 for generation in ready)
        plan = []
        for generation in ready:
            size = generation.n_pending
            if size > 1:
                size = min(size, budget)
                budget -= size
            if size:
                plan.append((generation, size))
        # With a split cache, unsorted rows were measured at two thirds of the speed.
        plan.sort(key=lambda part: part[0].sequence)
        return plan

    def _fill(self, plan: list[tuple[Generation, int]]) -> list[int]:
        """Write the batch; return each request's last row."""
        self._context.clear()
        rows = []
        for generation, size in plan:
            start, end = generation.n_past, generation.n_past + size
            wants_logits = int(end == len(generation.tokens))
            tokens = generation.tokens[start:end]
            rows.append(self._context.add(tokens, start, generation.sequence, wants_logits))
        return rows

    def _advance(self, generation: Generation, row: int) -> None:
        """Choose the next token of *generation*; an error ends this request only."""
        outlet = generation.outlet
        try:
            token = generation.sampler.sample(self._context, row)
            ended = generation.accept(token, self._vocab, self._context.n_ctx)
        except Exception as error:
            logger.exception("request %d failed", outlet.request_id)
            outlet.end(FailureDelta(LLMRouterError(f"the answer failed: {error}").to_failure()))
            ended = True
        if ended:
            self._leave(generation)
        outlet.flush()

    def _fail(self, generations: list[Generation], code: int) -> None:
        message = f"llama.cpp could not compute the next tokens (code {code}): {log.last_errors()}"
        logger.error("%s", message)
        for generation in generations:
            self._leave(generation)
            generation.outlet.end(FailureDelta(LLMRouterError(message).to_failure()))
            generation.outlet.flush()
        self._failed_steps += 1
        if self._failed_steps == _MAX_FAILED_STEPS:
            raise EngineBrokenError(message)

    def _leave(self, generation: Generation) -> None:
        """Take *generation* out for good."""
        if generation.sequence == NOT_RUNNING:
            self._waiting.remove(generation)
        else:
            self._release(generation)
        generation.sampler.close()

    def _release(self, generation: Generation) -> None:
        """Give the cells and the sequence of a running request back."""
        self._context.remove(generation.sequence)
        heappush(self._free, generation.sequence)
        generation.sequence = NOT_RUNNING
        self._running.remove(generation)
