"""The chain of samplers of one request: llama.cpp's own, in llama-server's order."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from llm_router_mw.engine.dry import DrySamplers
from llm_router_mw.engine.native import llama
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.sampling_limits import MAX_BIASES, sampler_names
from llm_router_mw.types import Sampling

_RANDOM_SEED = llama.LLAMA_DEFAULT_SEED
_MIROSTAT_M = 100
"""Tokens from which Mirostat 1 estimates; llama.cpp's own choice."""
_LOWEST_TEMPERATURE = 1e-6
"""Below it the probabilities would be no numbers any more."""
_BANNED = float("-inf")
_Bias = tuple[int, float]

# Whether a sampler changes anything, for those that need not.
_ACTIVE: dict[str, Callable[[Sampling], bool]] = {
    "penalties": lambda s: (
        s.repeat_last_n > 0
        and (s.repeat_penalty, s.frequency_penalty, s.presence_penalty) != (1, 0, 0)
    ),
    "dry": lambda s: s.dry_multiplier > 0 and s.dry_penalty_last_n > 0,
    "top_n_sigma": lambda s: s.top_n_sigma > 0,
    "top_k": lambda s: s.top_k > 0,
    "typ_p": lambda s: s.typical_p < 1,
    "top_p": lambda s: s.top_p < 1,
    "min_p": lambda s: s.min_p > 0,
    "xtc": lambda s: s.xtc_probability > 0 and s.xtc_threshold <= 0.5,
}
_NEVER_DROP_THE_BEST = ("top_n_sigma", "top_k", "top_p", "min_p")
_LOOK_BACK = ("penalties", "dry")


class Chain(Struct, frozen=True):
    """A chain, and what those who use it may take for granted."""

    pointer: Any
    looks_back: int
    """Tokens of the prompt that it must be told of; 0 if it does not care."""
    keeps_state: bool
    """Whether being told of a token changes what it does."""
    decides_among: int
    """The chain's choice depends on so many of the likeliest tokens only; 0 if on all."""
    heat: float
    """The highest temperature that it may apply, 1 at least."""
    has_biases: bool
    """Whether it begins with biases, which it finds fastest among all tokens in their order."""


def make_chain(sampling: Sampling, vocab: Vocab, n_ctx: int, dry: DrySamplers) -> Chain:
    """Build the chain that *sampling*, which has been checked, describes.

    Raises:
        InvalidRequestError: too many tokens are biased, or all are banned.
    """
    biases = _biases(sampling, vocab)
    names = _active_names(sampling)
    looks_back = [_n_back(name, sampling) for name in names if name in _LOOK_BACK]
    pointer = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for sampler in _samplers(sampling, vocab, n_ctx, names, biases, dry):
        llama.llama_sampler_chain_add(pointer, sampler)
    return Chain(
        pointer,
        looks_back=min(max(looks_back, default=0), n_ctx),
        keeps_state=bool(looks_back) or "adaptive_p" in names,
        decides_among=0 if biases or looks_back else _n_decisive(names, sampling),
        heat=max(1.0, sampling.temperature + max(0.0, sampling.dynatemp_range)),
        has_biases=bool(biases),
    )


def _active_names(sampling: Sampling) -> list[str]:
    """Return the samplers that do something, ``mirostat`` or ``greedy`` for those that replace."""
    if sampling.mirostat:
        return ["mirostat"]
    names = [
        name
        for name in sampler_names(sampling.samplers)
        if name not in _ACTIVE or _ACTIVE[name](sampling)
    ]
    if _is_cold(sampling) and "temperature" in names and not sampling.post_sampling_probs:
        before = names[: names.index("temperature")]
        if "adaptive_p" not in names and set(before) <= {*_NEVER_DROP_THE_BEST, *_LOOK_BACK}:
            # The likeliest token is all that a temperature of 0 leaves.
            return [*(name for name in before if name in _LOOK_BACK), "greedy"]
    return names


def _is_cold(sampling: Sampling) -> bool:
    return sampling.temperature < _LOWEST_TEMPERATURE and sampling.dynatemp_range <= 0


def _n_back(name: str, sampling: Sampling) -> int:
    return sampling.repeat_last_n if name == "penalties" else sampling.dry_penalty_last_n


def _n_decisive(names: list[str], sampling: Sampling) -> int:
    first = names[0] if names else ""
    return {"greedy": 1, "top_k": sampling.top_k}.get(first, 0)


def _samplers(
    sampling: Sampling,
    vocab: Vocab,
    n_ctx: int,
    names: list[str],
    biases: list[_Bias],
    dry: DrySamplers,
) -> Iterator[Any]:
    seed = _seed(sampling.seed)
    if biases:
        array = (llama.llama_logit_bias * len(biases))(*biases)
        yield llama.llama_sampler_init_logit_bias(vocab.size, len(biases), array)
    for name in names:
        if name == "mirostat":
            yield from _mirostat(sampling, vocab, seed)
        elif name == "dry":
            yield dry.make(sampling)
        elif name == "penalties":
            yield llama.llama_sampler_init_penalties(
                vocab.size,
                min(sampling.repeat_last_n, n_ctx),
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        elif name == "infill":
            yield llama.llama_sampler_init_infill(vocab.pointer)
        elif name != "adaptive_p":
            yield _filter(name, sampling, seed)
    if "adaptive_p" in names:
        yield llama.llama_sampler_init_adaptive_p(
            sampling.adaptive_target, sampling.adaptive_decay, seed
        )
    elif "mirostat" not in names and "greedy" not in names:
        yield llama.llama_sampler_init_dist(seed)


def _filter(name: str, sampling: Sampling, seed: int) -> Any:
    s, keep = sampling, sampling.min_keep
    makers: dict[str, Callable[[], Any]] = {
        "top_k": lambda: llama.llama_sampler_init_top_k(s.top_k),
        "top_p": lambda: llama.llama_sampler_init_top_p(s.top_p, keep),
        "min_p": lambda: llama.llama_sampler_init_min_p(s.min_p, keep),
        "typ_p": lambda: llama.llama_sampler_init_typical(s.typical_p, keep),
        "top_n_sigma": lambda: llama.llama_sampler_init_top_n_sigma(s.top_n_sigma),
        "xtc": lambda: llama.llama_sampler_init_xtc(s.xtc_probability, s.xtc_threshold, keep, seed),
        "temperature": lambda: llama.llama_sampler_init_temp_ext(
            _temperature(s), s.dynatemp_range, s.dynatemp_exponent
        ),
        "greedy": llama.llama_sampler_init_greedy,
    }
    return makers[name]()


def _mirostat(sampling: Sampling, vocab: Vocab, seed: int) -> Iterator[Any]:
    yield llama.llama_sampler_init_temp(_temperature(sampling))
    tau, eta = sampling.mirostat_tau, sampling.mirostat_eta
    if sampling.mirostat == 1:
        yield llama.llama_sampler_init_mirostat(vocab.size, seed, tau, eta, _MIROSTAT_M)
    else:
        yield llama.llama_sampler_init_mirostat_v2(seed, tau, eta)


def _temperature(sampling: Sampling) -> float:
    return 0.0 if sampling.temperature < _LOWEST_TEMPERATURE else sampling.temperature


def _biases(sampling: Sampling, vocab: Vocab) -> list[_Bias]:
    """Return pairs of token and bias; tokens that the vocabulary lacks cannot be chosen anyway."""
    found: list[_Bias] = []
    for key, given in sampling.logit_bias:
        bias = _BANNED if given is False else float(given)
        tokens = vocab.tokenize(key, add=False, parse=False) if isinstance(key, str) else [key]
        found += [(token, bias) for token in tokens if 0 <= token < vocab.size]
    if len(found) > MAX_BIASES:
        raise InvalidRequestError(
            f"Field 'logit_bias': at most {MAX_BIASES} tokens can be biased", param="logit_bias"
        )
    banned = (*vocab.suppressed, *(vocab.ends if sampling.ignore_eos else ()))
    found += [(token, _BANNED) for token in banned]
    if len({token for token, bias in found if bias == _BANNED}) == vocab.size:
        raise InvalidRequestError("Field 'logit_bias': it bans every token", param="logit_bias")
    return found


def _seed(seed: int | None) -> int:
    # llama.cpp takes 2^32 - 1 as "draw one", which llama-server writes as -1; we draw it here.
    if seed is None or seed == -1:
        return secrets.randbelow(_RANDOM_SEED)
    return int(seed % _RANDOM_SEED)
