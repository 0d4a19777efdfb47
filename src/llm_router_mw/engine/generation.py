"""One chat or completion request inside the engine, from its prompt to its finish."""

from __future__ import annotations

from time import perf_counter

from llm_router_mw.engine.blocks import Beginning
from llm_router_mw.engine.outlet import Outlet
from llm_router_mw.engine.prompt import Prompt
from llm_router_mw.engine.reported import ReportedTokens
from llm_router_mw.engine.sampler import Sampler
from llm_router_mw.engine.slots import CacheKey, Slot
from llm_router_mw.engine.text import TextStream
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import (
    FinishDelta,
    FinishReason,
    GenerationTask,
    ProgressDelta,
    Timings,
    Usage,
)


class Generation:
    """Tokens so far, the slot that holds them, and what makes text of new ones.

    Prompt and generated tokens are one list: to go on after its slot was taken away, a request
    only has to begin that list again.
    """

    def __init__(
        self,
        task: GenerationTask,
        prompt: Prompt,
        sampler: Sampler,
        scales: tuple[float, ...] = (),
    ) -> None:
        self.outlet: Outlet
        """Where its deltas go, once it has joined."""
        self.arrival = 0
        """Order of arrival; lower goes first."""
        self.task = task
        self.sampler = sampler
        self.scales = scales
        """Of the model's adapters; a batch works with one set of them."""
        self.served_at = 0
        """Its last turn, where it takes turns with requests of other adapters."""
        self.tokens = prompt.tokens
        self.n_prompt = len(prompt.tokens)
        self.slot: Slot | None = None
        """Its sequence in the context, while it runs."""
        self.marks = set(prompt.marks)
        """Lengths at which the sequence is worth coming back to."""
        self.follows: tuple[Generation, int] | None = None
        """A request under way and how much of its prompt this one waits to share."""
        self._beginning: Beginning | None = None
        self._parser = prompt.parser
        self._text = TextStream(prompt.stops)
        self._reported = ReportedTokens() if task.sampling.n_probs else None
        self._n_cached = 0
        self._n_generated = 0
        self._started_at: float | None = None
        self._first_token_at: float | None = None

    @property
    def cache_key(self) -> CacheKey:
        """What a request must have in common with this one to use its tokens."""
        return (self.task.cache_namespace, self.scales)

    @property
    def beginning(self) -> Beginning:
        """Its tokens, as snapshots are looked for by them; made when it is needed."""
        if self._beginning is None or self._beginning.n_tokens != len(self.tokens):
            self._beginning = Beginning(self.tokens, self.cache_key)
        return self._beginning

    @property
    def n_past(self) -> int:
        """Tokens at the beginning of the list that the context holds."""
        return len(self.slot.tokens) if self.slot is not None else 0

    @property
    def n_pending(self) -> int:
        """Tokens that the context must still take before the next one can be chosen."""
        return len(self.tokens) - self.n_past

    @property
    def stalled(self) -> bool:
        """Whether its reader must take deltas before it can go on."""
        return self.outlet.room == 0

    def start(self, slot: Slot) -> None:
        """Begin, or begin again, in *slot*, which may hold some of the tokens already."""
        self.slot = slot
        self.follows = None
        if self._started_at is None:
            self._started_at = perf_counter()
            self._n_cached = self.n_past
            self.report_progress()

    def next_stop(self) -> int:
        """Return up to which token the context may take the list in one go."""
        return min((mark for mark in self.marks if mark > self.n_past), default=len(self.tokens))

    def to_discard(self, n_ctx: int) -> tuple[int, int]:
        """Return how many tokens to keep when the context is shifted, and how many to drop then."""
        keep = self.n_prompt if self.task.n_keep < 0 else self.task.n_keep
        keep = min(keep, n_ctx - 4)
        left = self.n_past - keep
        discard = self.task.n_discard or left // 2
        return keep, max(1, min(discard, left - 1))

    def forget(self, keep: int, discard: int) -> None:
        """Go on without *discard* tokens behind the first *keep*."""
        del self.tokens[keep : keep + discard]
        self._beginning = None

    def report_progress(self) -> None:
        """Tell how far the prompt has been processed, if that was asked for."""
        if self.task.return_progress and not self._n_generated and self._started_at is not None:
            seconds = perf_counter() - self._started_at
            progress = ProgressDelta(self.n_prompt, self._n_cached, self.n_past, seconds)
            self.outlet.write([progress])
            self.outlet.flush()

    def accept(self, token: int, vocab: Vocab, n_ctx: int) -> bool:
        """Take the next token of the answer; return True if it was the last.

        The outlet is given what there is to show, and the finish.
        """
        self._first_token_at = self._first_token_at or perf_counter()
        self._n_generated += 1
        self.tokens.append(token)
        reason = self._take(token, vocab) or self._limit(n_ctx)
        if reason is not None:
            rest = [*self._parser.feed(self._text.finish()), *self._parser.finish()]
            if self._reported is not None:
                rest = self._reported.put_rest_into(rest, self._text)
            self.outlet.write(rest)
            self.outlet.end(self.finish(reason))
        return reason is not None

    def _take(self, token: int, vocab: Vocab) -> FinishReason | None:
        if vocab.is_end(token):
            return "stop"
        text = self._text.feed(vocab.piece(token, special=self.sampler.follows_grammar))
        if self._reported is not None and self.sampler.probs is not None:
            self._reported.add(self.sampler.probs, self._text)
        if text:
            deltas = self._parser.feed(text)
            if self._reported is not None:
                deltas = self._reported.put_into(deltas, self._text)
            self.outlet.write(deltas)
        if self._text.stopped:
            return "stop"
        return "length" if "\n" in text and self._is_late() else None

    def _is_late(self) -> bool:
        limit, since = self.task.max_seconds, self._first_token_at
        return limit is not None and since is not None and perf_counter() - since > limit

    def _limit(self, n_ctx: int) -> FinishReason | None:
        limit = self.task.max_tokens
        if limit is not None and self._n_generated >= limit:
            return "length"
        return "length" if len(self.tokens) >= n_ctx else None

    def finish(self, reason: FinishReason) -> FinishDelta:
        """Return the last delta, with what was counted and measured."""
        usage = Usage(
            prompt_tokens=self.n_prompt,
            completion_tokens=self._n_generated,
            cached_tokens=self._n_cached,
        )
        return FinishDelta(reason, usage, self._timings())

    def _timings(self) -> Timings:
        now = perf_counter()
        first = self._first_token_at or now
        return Timings(
            prompt_seconds=first - (self._started_at or now), predicted_seconds=now - first
        )
