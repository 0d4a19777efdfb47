"""Work that a lease can hand to an instance. Tasks cross the pipe as they are."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

DEFAULT_SAMPLERS = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
"""Names of the samplers, in the order in which they narrow the choice."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen; names and defaults are llama-server's.

    What is allowed for each field is in :mod:`llm_router_mw.sampling_limits`.
    """

    temperature: float = 0.8
    """0 is greedy."""
    dynatemp_range: float = 0.0
    """The temperature moves so far up and down with the entropy; 0 is off."""
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    """0 keeps the whole vocabulary."""
    top_p: float = 0.95
    """1 is off."""
    min_p: float = 0.05
    """Of the likeliest token's probability; 0 is off."""
    typical_p: float = 1.0
    """1 is off."""
    top_n_sigma: float = -1.0
    """Standard deviations below the best logit; negative is off."""
    xtc_probability: float = 0.0
    """How often the likeliest tokens are left out; 0 is off."""
    xtc_threshold: float = 0.1
    """Probability that a token needs to be left out by XTC; above 0.5 is off."""
    repeat_last_n: int = 64
    """Tokens, of the prompt too, that the penalties look back; 0 is off."""
    repeat_penalty: float = 1.0
    """1 is off."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    """Strength of DRY, which punishes the continuation of repeated passages; 0 is off."""
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    """Tokens that a repeated passage may have without being punished."""
    dry_penalty_last_n: int = 64
    """Tokens, of the prompt too, that DRY looks back; 0 is off."""
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    """1 or 2 choose by Mirostat in place of the samplers listed in ``samplers``; 0 is off."""
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    """Probability near which ``adaptive_p`` chooses, if ``samplers`` names it; negative is off."""
    adaptive_decay: float = 0.9
    min_keep: int = 0
    """Tokens that a filter leaves at least."""
    seed: int | None = None
    """None draws a fresh one for each request."""
    logit_bias: tuple[tuple[int | str, float | bool], ...] = ()
    """Pairs of a token, or a text for all tokens in it, and what is added to its logit.

    ``False`` bans it.
    """
    ignore_eos: bool = False
    """Whether the tokens that end an answer are banned."""
    samplers: tuple[str, ...] = DEFAULT_SAMPLERS
    """Which samplers work, in this order; ``adaptive_p`` and ``infill`` can be named too."""
    grammar: str = ""
    """GBNF that the answer follows."""
    json_schema: str | dict[str, Any] = ""
    """JSON schema that the answer is valid by, as such or as JSON text; empty is none."""
    n_probs: int = 0
    """How many of the likeliest tokens to report beside each chosen one; 0 reports nothing."""
    post_sampling_probs: bool = False
    """Whether the probabilities reported are those after the samplers, not the model's own."""


class GenerationTask(Struct, frozen=True, kw_only=True):
    """What chat and completion share. Base of both; never sent itself."""

    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None runs to the model's own end or to the end of the context."""
    stop: tuple[str, ...] = ()
    """Strings that end the generation; they are not part of the answer."""
    max_seconds: float | None = None
    """Ends an answer with its first new line after so long."""
    n_keep: int = 0
    """Tokens at the beginning that stay when the context is shifted; -1 is the whole prompt."""
    n_discard: int = 0
    """Tokens that are dropped when the context is shifted; 0 is half of those not kept."""
    cache_prompt: bool = True
    """Whether tokens of earlier requests may be used again."""
    cache_namespace: str = ""
    """Requests share computed tokens only with others of their namespace."""
    return_progress: bool = False
    """Whether to report how far the prompt has been processed."""
    lora: tuple[tuple[int, float], ...] | None = None
    """Pairs of an adapter, by its place in the load option ``lora``, and its scale.

    Adapters that are not named are off; None takes all as they were loaded.
    """


class ChatTask(GenerationTask, frozen=True, kw_only=True, tag="chat"):
    """Answer the last message of a conversation."""

    messages: tuple[dict[str, Any], ...]


class CompletionTask(GenerationTask, frozen=True, kw_only=True, tag="completion"):
    """Continue a prompt, given as text or as tokens."""

    prompt: str | tuple[int, ...]


class EmbedTask(Struct, frozen=True, kw_only=True, tag="embed"):
    """Embed each input; one vector per input, L2-normalised unless the pooling is ``rank``."""

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    """Only so many leading values of each vector, normalised again; None is all of them."""


class RerankTask(Struct, frozen=True, kw_only=True, tag="rerank"):
    """Score each document by how well it answers the query; needs pooling ``rank``.

    The answer is one vector of one value per document: its score, higher is better.
    """

    query: str
    documents: tuple[str, ...]


Task = ChatTask | CompletionTask | EmbedTask | RerankTask
