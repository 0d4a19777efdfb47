"""Continuous batching: requests join and leave the shared context at every step."""

from __future__ import annotations

import logging
import sys
from bisect import insort
from itertools import count

from msgspec.structs import replace

from llm_router_mw.engine.aside import Aside
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.generation import Generation
from llm_router_mw.engine.native import log
from llm_router_mw.engine.offers import Found, Offers
from llm_router_mw.engine.outlet import Outlet
from llm_router_mw.engine.pace import Pace
from llm_router_mw.engine.prompt import PromptReader
from llm_router_mw.engine.reranking import not_a_reranker
from llm_router_mw.engine.sampler import Samplers
from llm_router_mw.engine.slots import NO_MATCH, Match, Slot, Slots, common_prefix
from llm_router_mw.engine.snapshots import Snapshots
from llm_router_mw.engine.spares import Spares
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import InvalidRequestError, LLMRouterError, NotSupportedError
from llm_router_mw.types import EmbedTask, FailureDelta, FinishDelta, LoadOptions, RerankTask, Task

logger = logging.getLogger("llm_router_mw.engine")

_ROOM_TO_GROW = 16
"""Cells per running request that admission leaves free, or newcomers would be thrown out again."""
_WORTH_WAITING = 64
"""Tokens that another request must be about to compute for this one to wait for them."""
_MAX_FAILED_STEPS = 3
_NO_ROOM = 1
_ABORTED = 2

Part = tuple[Generation, int]
"""A request and how many of its tokens take part in a step."""


class EngineBrokenError(Exception):
    """llama.cpp failed several times in a row; this process is no good any more."""


class GenerationLoop:
    """Decodes all running requests together, one batch per step.

    The cells of the context are shared. A request occupies one per token, or shares those of
    another that begins in the same way. When they run out, what is kept from requests that are
    over goes first; then the youngest request gives its cells back and later computes them again:
    its text, its sampler and its place in the line stay, so nothing is lost and the oldest always
    gets on.
    """

    def __init__(
        self,
        context: Context,
        vocab: Vocab,
        prompts: PromptReader,
        options: LoadOptions,
        offers: Offers,
        helper: Aside | None = None,
    ) -> None:
        """Serve requests in *context*; *offers* has more room for what was computed.

        Who makes *helper* sees that what its jobs return is called in the engine's thread.
        """
        self._context = context
        self._vocab = vocab
        self._prompts = prompts
        self._n_ctx = sys.maxsize if options.context_shift else context.n_ctx
        """Tokens at which a request ends; where the context shifts, it goes on without end."""
        self._share_prefix = options.share_prefix
        self._samplers = Samplers(vocab, context.n_ctx)
        self._slots = Slots(context)
        self._pace = Pace(context.n_batch, unified=context.unified)
        self._offers = offers
        self.snapshots = Snapshots(context, self._slots, offers, self._pace)
        self._spares = Spares(self.snapshots, self._slots, offers, self._pace, helper)
        self._slots.on_loss = self._lose
        self._arrivals = count()
        self._turns = count(1)
        # Both in order of arrival.
        self._waiting: list[Generation] = []
        self._running: list[Generation] = []
        self._failed_steps = 0

    def prepare(self, task: Task) -> Generation:
        """Return *task* as a request that can join; from any thread.

        Raises:
            RequestError: it cannot be served as it is.
        """
        if isinstance(task, EmbedTask):
            raise NotSupportedError(
                "this model does not support embeddings as it is loaded; set its load option "
                "pooling ('mean', 'cls' or 'last') to make it an embedding model"
            )
        if isinstance(task, RerankTask):
            raise not_a_reranker()
        if task.max_tokens is not None and task.max_tokens < 1:
            raise InvalidRequestError("max_tokens must be at least 1", param="max_tokens")
        prompt = self._prompts.read(task)
        if self._share_prefix:
            task = replace(task, cache_namespace="")
        scales = self._context.adapter_scales(task.lora)
        return Generation(task, prompt, self._samplers.make(task.sampling, prompt.tokens), scales)

    def join(self, generation: Generation, outlet: Outlet) -> None:
        """Put *generation* in line; its answer goes to *outlet*."""
        generation.arrival = next(self._arrivals)
        generation.outlet = outlet
        self._waiting.append(generation)

    def drop(self, generation: Generation) -> None:
        """Free what was prepared for a request that does not join."""
        generation.sampler.close()

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
            self._spares.make_ready()
            return False
        rows = self._fill(plan)
        self._context.set_adapters(plan[0][0].scales)
        requests = {generation.outlet.request_id for generation, _ in plan}
        with self._pace.timed(plan), self._context.abort.step(requests):
            code = self._context.compute()
        if code == 0:
            self._failed_steps = 0
            for (generation, size), row in zip(plan, rows, strict=True):
                self._computed(generation, size, row)
        elif code == _NO_ROOM and self._give_way():
            pass  # the next step tries again
        elif code == _ABORTED:
            # All of them have been cancelled, as the next messages will say.
            self._forget(plan)
        else:
            self._forget(plan)
            self._fail([generation for generation, _ in plan], code)
        return True

    def close(self) -> None:
        """Free what the requests hold."""
        for generation in (*self._running, *self._waiting):
            self._leave(generation)
        self._samplers.close()

    # Room

    @property
    def _n_promised(self) -> int:
        """Cells that the running requests have still to take for the tokens they have."""
        return sum(generation.n_pending for generation in self._running)

    def _make_room(self) -> None:
        self._shift()
        # One alone never exceeds the context: it ends, or shifts, when it reaches its size.
        while self._n_promised > self._slots.n_free_cells and self._give_way():
            pass

    def _give_way(self) -> bool:
        """Free what is kept longest, or else the youngest request's cells; False if neither is."""
        if self._slots.drop_oldest():
            return True
        if len(self._running) > 1:
            self._preempt()
            return True
        return False

    def _lose(self, slot: Slot) -> None:
        self._spares.keep(slot, hurried=bool(self._running))

    def _preempt(self) -> None:
        """Send a running request back into the line; rather one that stands still anyway."""
        stalled = [generation for generation in self._running if generation.stalled]
        victim = (stalled or self._running)[-1]
        assert victim.slot is not None
        self._slots.clear(victim.slot)
        self._release(victim)
        insort(self._waiting, victim, key=lambda generation: generation.arrival)

    def _shift(self) -> None:
        """Let requests that fill their context go on without the older half of their tokens."""
        for generation in self._running:
            if len(generation.tokens) > self._context.n_ctx and generation.slot is not None:
                keep, discard = generation.to_discard(self._context.n_ctx)
                if not self._slots.shift(generation.slot, keep, discard):
                    # The tokens behind the gap are computed again, at their new places.
                    self._slots.cut(generation.slot, keep)
                generation.forget(keep, discard)

    # Admission

    def _admit(self) -> None:
        """Start waiting requests in their order, as long as their tokens and some more fit."""
        # Most steps have no slot to give, and the line may be long.
        if not self._slots.has_idle:
            return
        for generation in [waiting for waiting in self._waiting if not waiting.stalled]:
            if not self._slots.has_idle:
                return
            match = self._match(generation)
            found = self._find(generation, match)
            if self._waits_for_another(generation, found.length if found else match.length):
                continue
            slot = self._place(generation, match, found)
            if slot is None:
                return
            self._waiting.remove(generation)
            generation.start(slot)
            insort(self._running, generation, key=lambda running: running.arrival)

    def _match(self, generation: Generation) -> Match:
        if not generation.task.cache_prompt:
            return NO_MATCH
        return self._slots.match(generation.tokens, generation.cache_key)

    def _find(self, generation: Generation, match: Match) -> Found | None:
        """Return a snapshot that spares much more than *match*, if there is one."""
        # Most conversations have none, and that is quickly seen.
        if not generation.task.cache_prompt or not self._offers.knows(generation.cache_key):
            return None
        limit = len(generation.tokens) - 1
        found = self.snapshots.find(generation.beginning, limit, match)
        fits = found is not None and found.snapshot.n_tokens <= self._context.n_ctx
        return found if fits else None

    def _place(self, generation: Generation, match: Match, found: Found | None) -> Slot | None:
        """Return a slot that holds what is spared of *generation*; None if there is no room."""
        while found is not None:
            # All of a snapshot needs room, even where only its beginning is of use.
            if self._clear_room(generation, NO_MATCH, found.snapshot.n_tokens) is None:
                break
            slot = self._slots.take(NO_MATCH, generation.cache_key)
            if self.snapshots.restore(slot, found):
                return slot
            self._slots.release(slot)
            match = self._match(generation)
            found = self._find(generation, match)
        spared = self._clear_room(generation, match)
        return None if spared is None else self._slots.take(spared, generation.cache_key)

    def _waits_for_another(self, generation: Generation, n_spared: int) -> bool:
        """Whether somebody is about to compute tokens that *generation* could then share.

        That must be more than the *n_spared* that it could begin with now.
        """
        if generation.follows is not None:
            leader, length = generation.follows
            if leader in self._running and leader.n_past < length:
                return True
            generation.follows = None
        if not generation.task.cache_prompt:
            return False
        limit = len(generation.tokens) - 1
        best = n_spared + _WORTH_WAITING
        for leader in self._running:
            if leader.n_pending > 1 and leader.cache_key == generation.cache_key:
                length = common_prefix(leader.tokens, generation.tokens, limit)
                if length >= best and leader.n_past < length:
                    generation.follows, best = (leader, length), length
        if generation.follows is None:
            return False
        if self._slots.needs_checkpoints:
            leader, length = generation.follows
            leader.marks.add(length)
        return True

    def _clear_room(self, generation: Generation, match: Match, at_least: int = 0) -> Match | None:
        """Make room for *generation* at the cost of what is kept; None if that is not enough."""
        growth = _ROOM_TO_GROW * (len(self._running) + 1) if self._running else 0
        needed = self._n_promised + max(len(generation.tokens) - match.length, at_least) + growth
        return self._slots.clear_room(needed, match)

    # One step

    def _plan(self) -> list[Part]:
        """Return who takes part in this step with how many tokens, sorted by sequence."""
        ready = self._of_equal_adapters(
            [generation for generation in self._running if not generation.stalled]
        )
        budget = self._prompt_budget(ready)
        plan: list[Part] = []
        for generation in ready:
            size = generation.n_pending
            if size > 1:
                size = min(generation.next_stop() - generation.n_past, budget)
                budget -= size
            if size:
                plan.append((generation, size))
        # llama.cpp computes a batch up to a third faster if the rows of a sequence are together.
        plan.sort(key=_sequence)
        return plan

    def _prompt_budget(self, ready: list[Generation]) -> int:
        """Return how many tokens of prompts go into a step of *ready*."""
        depths = [generation.n_past for generation in ready if generation.n_pending > 1]
        if not depths:
            return 0
        n_decoding = len(ready) - len(depths)
        # Those who stand still, or wait for their turn, must not come back behind a long step.
        n_answers = sum(generation.n_pending == 1 for generation in self._running)
        return self._pace.prompt_budget(n_decoding, max(depths), n_paused=n_answers - n_decoding)

    def _of_equal_adapters(self, ready: list[Generation]) -> list[Generation]:
        """Return those of *ready* that can share a batch; who waited longest goes first."""
        if len({generation.scales for generation in ready}) <= 1:
            return ready
        first = min(ready, key=lambda generation: generation.served_at)
        chosen = [generation for generation in ready if generation.scales == first.scales]
        turn = next(self._turns)
        for generation in chosen:
            generation.served_at = turn
        return chosen

    def _fill(self, plan: list[Part]) -> list[int]:
        """Write the batch; return each request's last row."""
        self._context.clear()
        rows = []
        for generation, size in plan:
            start, end = generation.n_past, generation.n_past + size
            wants_logits = int(end == len(generation.tokens))
            tokens = generation.tokens[start:end]
            rows.append(self._context.add(tokens, start, _sequence((generation, 0)), wants_logits))
        return rows

    def _computed(self, generation: Generation, size: int, row: int) -> None:
        slot = generation.slot
        assert slot is not None
        start = generation.n_past
        self._slots.extend(slot, generation.tokens[start : start + size])
        if generation.n_past in generation.marks:
            if self._slots.needs_checkpoints:
                self._slots.checkpoint(slot)
            generation.marks.discard(generation.n_past)
        if start < generation.n_prompt:
            generation.report_progress()
        if generation.n_pending == 0:
            self._advance(generation, row)
        else:
            generation.outlet.flush()

    def _advance(self, generation: Generation, row: int) -> None:
        """Choose the next token of *generation*; an error ends this request only."""
        outlet = generation.outlet
        try:
            token = generation.sampler.sample(self._context, row)
            ended = generation.accept(token, self._vocab, self._n_ctx)
        except LLMRouterError as error:
            outlet.end(FailureDelta(error.to_failure()))
            ended = True
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

    def _forget(self, plan: list[Part]) -> None:
        """Clear the slots of a step that came to nothing: nobody knows what they hold now."""
        for generation, _ in plan:
            if generation.slot is not None:
                self._slots.clear(generation.slot)

    def _leave(self, generation: Generation) -> None:
        """Take *generation* out for good."""
        if generation.slot is None:
            self._waiting.remove(generation)
        else:
            self._release(generation)
        generation.sampler.close()

    def _release(self, generation: Generation) -> None:
        """Give the slot of a running request back; what it holds stays for others."""
        assert generation.slot is not None
        self._slots.release(generation.slot)
        generation.slot = None
        self._running.remove(generation)


def _sequence(part: Part) -> int:
    slot = part[0].slot
    assert slot is not None
    return slot.sequence
