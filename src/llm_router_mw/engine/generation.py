"""One chat or completion request inside the engine, from its prompt to its finish."""

from __future__ import annotations

from time import perf_counter

from llm_router_mw.engine.outlet import Outlet
from llm_router_mw.engine.prompt import Prompt
from llm_router_mw.engine.sampler import Sampler
from llm_router_mw.engine.text import TextStream
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import FinishDelta, FinishReason, Timings, Usage

NOT_RUNNING = -1


class Generation:
    """Tokens so far, how many of them the context holds, and what makes text of new ones.

    Prompt and generated tokens are one list: to go on after its memory was taken away, a request
    only has to begin that list again.
    """

    def __init__(
        self, arrival: int, prompt: Prompt, sampler: Sampler, max_tokens: int | None, outlet: Outlet
    ) -> None:
        self.arrival = arrival
        """Order of arrival; lower goes first."""
        self.outlet = outlet
        self.sampler = sampler
        self.tokens = prompt.tokens
        self.n_past = 0
        """Tokens at the beginning of the list that the context holds."""
        self.sequence = NOT_RUNNING
        """Its sequence in the context, while it runs."""
        self._n_prompt = len(prompt.tokens)
        self._max_tokens = max_tokens
        self._parser = prompt.parser
        self._text = TextStream(prompt.stops)
        self._n_generated = 0
        self._started_at: float | None = None
        self._first_token_at: float | None = None

    @property
    def n_pending(self) -> int:
        """Tokens that the context must still take before the next one can be chosen."""
        return len(self.tokens) - self.n_past

    @property
    def stalled(self) -> bool:
        """Whether its reader must take deltas before it can go on."""
        return self.outlet.room == 0

    def start(self, sequence: int) -> None:
        """Begin, or begin again, as *sequence*."""
        self.sequence = sequence
        self.n_past = 0
        self._started_at = self._started_at or perf_counter()

    def accept(self, token: int, vocab: Vocab, n_ctx: int) -> bool:
        """Take the next token of the answer; return True if it was the last.

        The outlet is given what there is to show, and the finish.
        """
        self._first_token_at = self._first_token_at or perf_counter()
        self._n_generated += 1
        self.tokens.append(token)
        reason = self._take(token, vocab) or self._limit(n_ctx)
        if reason is not None:
            self.outlet.write(self._parser.feed(self._text.finish()))
            self.outlet.write(self._parser.finish())
            self.outlet.end(self.finish(reason))
        return reason is not None

    def _take(self, token: int, vocab: Vocab) -> FinishReason | None:
        if vocab.is_end(token):
            return "stop"
        text = self._text.feed(vocab.piece(token))
        if text:
            self.outlet.write(self._parser.feed(text))
        return "stop" if self._text.stopped else None

    def _limit(self, n_ctx: int) -> FinishReason | None:
        if self._max_tokens is not None and self._n_generated >= self._max_tokens:
            return "length"
        return "length" if len(self.tokens) >= n_ctx else None

    def finish(self, reason: FinishReason) -> FinishDelta:
        """Return the last delta, with what was counted and measured."""
        usage = Usage(prompt_tokens=self._n_prompt, completion_tokens=self._n_generated)
        return FinishDelta(reason, usage, self._timings())

    def _timings(self) -> Timings:
        now = perf_counter()
        first = self._first_token_at or now
        return Timings(
            prompt_seconds=first - (self._started_at or now), predicted_seconds=now - first
        )
