"""Choosing the next token of a request, and saying how likely it was."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import exp

import numpy as np

from llm_router_mw.engine.candidates import Candidates, Logits
from llm_router_mw.engine.chain import Chain, make_chain
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.dry import DrySamplers
from llm_router_mw.engine.grammar import Grammar, make_grammar
from llm_router_mw.engine.native import llama
from llm_router_mw.engine.probabilities import after_sampling, before_sampling
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import InvalidRequestError, LLMRouterError
from llm_router_mw.sampling_limits import check_sampling
from llm_router_mw.types import Sampling, TokenProbs

_LOOKS = (512, 8192)
"""So many of the likeliest tokens are tried first when the grammar refused the first choice."""
_NEGLIGIBLE = 1e-4
"""Probability: rounding differences between batches of other sizes change more."""


class Samplers:
    """Makes the samplers of one instance."""

    def __init__(self, vocab: Vocab, n_ctx: int) -> None:
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._dry = DrySamplers(vocab, n_ctx)
        # Finding them takes so long that it is better done now than beside running requests.
        _ = vocab.ends

    @cached_property
    def _candidates(self) -> Candidates:
        return Candidates(self._vocab.size)

    def make(self, sampling: Sampling, prompt: Sequence[int]) -> Sampler:
        """Return the sampler for an answer to the tokens *prompt*.

        Raises:
            InvalidRequestError: a setting is wrong; ``param`` names it.
        """
        check_sampling(sampling)
        grammar = make_grammar(sampling, self._vocab)
        try:
            chain = make_chain(sampling, self._vocab, self._n_ctx, self._dry)
        except InvalidRequestError:
            if grammar is not None:
                grammar.close()
            raise
        for token in prompt[-chain.looks_back :] if chain.looks_back else ():
            llama.llama_sampler_accept(chain.pointer, token)
        return Sampler(sampling, chain, grammar, self._candidates, self._vocab)

    def close(self) -> None:
        """Free what is kept for requests to come."""
        self._dry.close()


class Sampler:
    """A chain of samplers, maybe a grammar, and their state: one answer of one request."""

    def __init__(
        self,
        sampling: Sampling,
        chain: Chain,
        grammar: Grammar | None,
        candidates: Candidates,
        vocab: Vocab,
    ) -> None:
        self._chain = chain
        self._grammar = grammar
        self._candidates = candidates
        self._vocab = vocab
        self._n_probs = sampling.n_probs
        self._after = sampling.post_sampling_probs
        self._is_plain = grammar is None and not sampling.n_probs
        # Telling the chain of a token that is taken back then would change what follows.
        self._is_cautious = chain.keeps_state or (bool(sampling.n_probs) and self._after)
        self.probs: TokenProbs | None = None
        """What was asked for about the token chosen last."""

    @property
    def follows_grammar(self) -> bool:
        """Whether special tokens are text, too: the grammar sees all of them so."""
        return self._grammar is not None

    def sample(self, context: Context, row: int) -> int:
        """Choose a token by the logits of *row* of the last batch, and remember it.

        Raises:
            InvalidRequestError: the grammar leaves no token.
        """
        if self._is_plain:
            token: int = llama.llama_sampler_sample(self._chain.pointer, context.pointer, row)
            return token
        return self._sample(context, row)

    def _sample(self, context: Context, row: int) -> int:
        chain, grammar = self._chain, self._grammar
        logits = self._candidates.logits(context.pointer, row)
        token: int | None
        if self._is_cautious:
            self._candidates.fill(logits)
            token = self._choose()
        else:
            token = llama.llama_sampler_sample(chain.pointer, context.pointer, row)
        if grammar is not None and (token is None or not grammar.allows(token)):
            token = self._choose_by(grammar, logits)
        if token is None:
            raise LLMRouterError(
                "no token can be chosen: the model's probabilities are no numbers; its file may "
                "be damaged"
            )
        if self._n_probs:
            self.probs = self._describe(token, logits)
        if self._is_cautious:
            llama.llama_sampler_accept(chain.pointer, token)
        if grammar is not None:
            grammar.accept(token)
        return token

    def _choose(self) -> int | None:
        self._candidates.apply(self._chain.pointer)
        return self._candidates.chosen

    def _choose_by(self, grammar: Grammar, logits: Logits) -> int:
        """Choose among what *grammar* allows, after it refused the first choice."""
        candidates = self._candidates
        # Going through the whole vocabulary takes tens of milliseconds, and is seldom needed.
        for size in self._looks(len(logits)):
            likeliest = np.argpartition(logits, -size)[-size:]
            candidates.fill(logits, likeliest)
            grammar.restrict(candidates)
            allowed = candidates.drop_impossible()
            if len(allowed) and self._is_enough(allowed, float(logits[likeliest].min())):
                token = self._choose()
                if token is not None:
                    return token
        candidates.fill(logits)
        grammar.restrict(candidates)
        if self._chain.has_biases or len(candidates.drop_impossible()):
            token = self._choose()
            if token is not None:
                return token
        return self._end_of(grammar)

    def _looks(self, n_vocab: int) -> tuple[int, ...]:
        if not self._chain.decides_among:
            return ()
        return tuple(size for size in _LOOKS if 2 * size < n_vocab)

    def _is_enough(self, allowed: Logits, lowest: float) -> bool:
        """Tell whether tokens below the logit *lowest* could not change the choice."""
        needed = self._chain.decides_among
        if len(allowed) >= needed:
            return True
        # Those that would be kept too have less than this part of the probability, together.
        gap = (float(allowed.max()) - lowest) / self._chain.heat
        return needed * exp(-gap) < _NEGLIGIBLE

    def _end_of(self, grammar: Grammar) -> int:
        """Return a token that ends the answer: the grammar may be complete, and all ends banned."""
        for token in self._vocab.ends:
            if grammar.allows(token):
                return token
        raise InvalidRequestError(
            f"Field '{grammar.param}': no token of this model can go on in the grammar",
            param=grammar.param,
        )

    def _describe(self, token: int, logits: Logits) -> TokenProbs:
        if self._after:
            return after_sampling(token, self._candidates, self._n_probs, self._vocab)
        return before_sampling(token, logits, self._n_probs, self._vocab)

    def close(self) -> None:
        """Free what llama.cpp holds for it."""
        llama.llama_sampler_free(self._chain.pointer)
        if self._grammar is not None:
            self._grammar.close()
