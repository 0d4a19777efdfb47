"""How likely a chosen token was, and which others were likely in its place."""

from __future__ import annotations

from math import log

import numpy as np

from llm_router_mw.engine.candidates import Candidates, Logits
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.types import TokenProb, TokenProbs

IMPOSSIBLE = float(np.finfo(np.float32).min)
"""Stands for the logarithm of 0, which JSON cannot write."""


def before_sampling(token: int, logits: Logits, n_top: int, vocab: Vocab) -> TokenProbs:
    """Describe *token* by the probabilities that the model itself gave."""
    n_top = min(n_top, len(logits))
    highest = logits.max()
    total = float(highest) + log(np.exp(logits - highest).sum(dtype=np.float64))
    top = np.argpartition(logits, -n_top)[-n_top:]
    top = top[np.argsort(-logits[top], kind="stable")]
    likeliest = [(int(one), float(logits[one]) - total) for one in top]
    return _described(token, float(logits[token]) - total, likeliest, vocab)


def after_sampling(token: int, candidates: Candidates, n_top: int, vocab: Vocab) -> TokenProbs:
    """Describe *token* by the probabilities that the samplers made of the model's."""
    own, top = candidates.probabilities(token, n_top)
    likeliest = [(one, log(probability)) for one, probability in top]
    return _described(token, log(own) if own else IMPOSSIBLE, likeliest, vocab)


def _described(
    token: int, logprob: float, top: list[tuple[int, float]], vocab: Vocab
) -> TokenProbs:
    others = tuple(TokenProb(*_named(one, value, vocab)) for one, value in top)
    return TokenProbs(*_named(token, logprob, vocab), others)


def _named(token: int, logprob: float, vocab: Vocab) -> tuple[int, str, bytes, float]:
    raw = vocab.piece(token)
    return token, raw.decode(errors="ignore"), raw, max(logprob, IMPOSSIBLE)
