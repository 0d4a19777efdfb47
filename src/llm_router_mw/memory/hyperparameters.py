"""The shape of a model, read from its file as llama.cpp reads it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf import GGUFArray, GGUFHeader
from llm_router_mw.memory.architecture import Architecture, architecture
from llm_router_mw.memory.feed_forward import FeedForward, read_feed_forwards

MAX_LAYERS = 512
"""llama.cpp takes no more."""


class Hyperparameters(Struct, frozen=True, kw_only=True):
    """Sizes of a model, in elements; a tuple has one item per layer."""

    name: str
    """Of the architecture."""
    architecture: Architecture
    n_ctx_train: int
    n_vocab: int
    n_embd: int
    n_embd_out: int
    n_layer: int
    """Layers that are computed."""
    n_layer_all: int
    """With those for drafting, which stay in the file."""
    n_head: tuple[int, ...]
    n_head_kv: tuple[int, ...]
    head_k: tuple[int, ...]
    """Size of a head's key."""
    head_v: tuple[int, ...]
    feed_forward: tuple[FeedForward, ...]
    n_expert: int
    n_expert_used: tuple[int, ...]
    is_swa: tuple[bool, ...]
    n_swa: int
    is_recurrent: tuple[bool, ...]
    has_kv: tuple[bool, ...]
    """Whether the layer has a key-value cache of its own."""
    is_mla: bool
    """Whether keys and values are kept in one latent vector."""
    head_k_mla: int
    n_lora_kv: int
    is_causal: bool
    conv_kernel: int
    inner_size: int
    state_size: int
    n_group: int
    time_step_rank: int
    n_embd_r: int
    """Elements of a recurrent layer's convolution state, per sequence."""
    n_embd_s: int
    """Elements of its recurrent state."""

    def width_k(self, layer: int) -> int:
        """Return the elements of one token's keys in *layer*."""
        return self.head_k[layer] * self.n_head_kv[layer]

    def width_v(self, layer: int) -> int:
        """Return the elements of one token's values in *layer*."""
        return self.head_v[layer] * self.n_head_kv[layer]

    @property
    def n_embd_k(self) -> tuple[int, ...]:
        """Elements of one token's keys."""
        return tuple(map(self.width_k, range(self.n_layer_all)))

    @property
    def n_embd_v(self) -> tuple[int, ...]:
        """Elements of one token's values."""
        return tuple(map(self.width_v, range(self.n_layer_all)))


class _Keys:
    """The metadata of a file under its architecture's prefix."""

    def __init__(self, header: GGUFHeader, name: str) -> None:
        self._header = header
        self._prefix = name

    def number(self, key: str, default: int = 0) -> int:
        """Return the integer at *key*; of an array, the first."""
        value = self._header.metadata.get(f"{self._prefix}.{key}")
        if isinstance(value, GGUFArray):
            value = value.items[0] if value.items else None
        return default if value is None or isinstance(value, (str, float)) else max(0, int(value))

    def numbers(self, key: str, count: int) -> tuple[int, ...] | None:
        """Return *count* integers at *key*: an array's, or one for all; None if there is none."""
        value = self._header.metadata.get(f"{self._prefix}.{key}")
        if isinstance(value, GGUFArray):
            items = tuple(max(0, int(item)) for item in (value.items or ())[:count])
            return items + (0,) * (count - len(items))
        if isinstance(value, int):
            return (max(0, int(value)),) * count
        return None

    def array(self, key: str, count: int) -> tuple[bool, ...] | None:
        """Return the array of truth values at *key*; None if there is none, or a single one."""
        value = self._header.metadata.get(f"{self._prefix}.{key}")
        if not isinstance(value, GGUFArray):
            return None
        items = tuple(bool(item) for item in (value.items or ())[:count])
        return items + (False,) * (count - len(items))


def read_hyperparameters(header: GGUFHeader, *more: GGUFHeader) -> Hyperparameters:
    """Return the shape of the model whose files have *header*, the first, and *more*.

    Raises:
        ModelFileError: the file says nothing of its architecture, or impossible things.
    """
    name = header.architecture
    if name is None:
        raise ModelFileError("the file names no architecture; it is not a language model")
    keys = _Keys(header, name)
    facts = architecture(name)
    n_all, n_embd = keys.number("block_count"), keys.number("embedding_length")
    if not 0 < n_all <= MAX_LAYERS or n_embd <= 0:
        raise ModelFileError(
            f"the file describes {n_all} layers of {n_embd} elements; it is not a language model, "
            "or it is damaged"
        )
    n_layer = max(0, n_all - keys.number("nextn_predict_layers")) or n_all
    n_head = keys.numbers("attention.head_count", n_all) or (0,) * n_all
    n_head_kv = keys.numbers("attention.head_count_kv", n_all) or n_head
    n_ff = keys.numbers("feed_forward_length", n_all) or (0,) * n_all
    recurrent = _recurrent(facts, keys, n_layer, n_head_kv, n_ff)
    is_swa, n_swa = _windows(facts, keys, name, n_layer, n_all, recurrent)
    head_k, head_v = _head_sizes(keys, n_embd, n_head, is_swa)
    n_embd_r, n_embd_s = _recurrent_sizes(keys, n_embd, n_head[0] if n_head else 0)
    head_k_mla = keys.number("attention.key_length_mla")
    head_v_mla = keys.number("attention.value_length_mla")
    return Hyperparameters(
        name=name,
        architecture=facts,
        n_ctx_train=keys.number("context_length"),
        n_vocab=_n_vocab(header, keys),
        n_embd=n_embd,
        n_embd_out=keys.number("embedding_length_out", n_embd),
        n_layer=n_layer,
        n_layer_all=n_all,
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_k=head_k,
        head_v=head_v,
        feed_forward=read_feed_forwards([header, *more], n_all) or _described(keys, n_ff),
        n_expert=keys.number("expert_count"),
        n_expert_used=keys.numbers("expert_used_count", n_all) or (0,) * n_all,
        is_swa=is_swa,
        n_swa=n_swa,
        is_recurrent=recurrent + (False,) * (n_all - n_layer),
        has_kv=_with_kv(facts, keys, name, n_layer, n_all, recurrent, n_ff),
        is_mla=bool(head_k_mla and head_v_mla),
        head_k_mla=head_k_mla,
        n_lora_kv=keys.number("attention.kv_lora_rank"),
        is_causal=bool(keys.number("attention.causal", 1)),
        conv_kernel=keys.number("ssm.conv_kernel"),
        inner_size=keys.number("ssm.inner_size"),
        state_size=keys.number("ssm.state_size"),
        n_group=keys.number("ssm.group_count"),
        time_step_rank=keys.number("ssm.time_step_rank"),
        n_embd_r=n_embd_r,
        n_embd_s=n_embd_s,
    )


def _n_vocab(header: GGUFHeader, keys: _Keys) -> int:
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return tokens.length if isinstance(tokens, GGUFArray) else keys.number("vocab_size")


def _described(keys: _Keys, n_ff: Sequence[int]) -> tuple[FeedForward, ...]:
    """Return what the metadata says of the networks, for files without them."""
    n_all = len(n_ff)
    sizes = n_ff if keys.number("expert_count") else (0,) * n_all
    one = keys.number("expert_feed_forward_length")
    shared = keys.number("expert_shared_feed_forward_length")
    shared = shared or keys.number("expert_shared_count") * one
    experts = keys.numbers("expert_feed_forward_length", n_all) or sizes
    return tuple(
        FeedForward(n_ff=size, n_ff_exp=expert, n_ff_shared=shared)
        for size, expert in zip(n_ff, experts, strict=True)
    )


def _recurrent(
    facts: Architecture,
    keys: _Keys,
    n_layer: int,
    n_head_kv: Sequence[int],
    n_ff: Sequence[int],
) -> tuple[bool, ...]:
    layers = range(n_layer)
    if facts.recurrence in ("all", "both"):
        return (True,) * n_layer
    if facts.recurrence == "no-kv-heads":
        return tuple(n_head_kv[layer] == 0 for layer in layers)
    if facts.recurrence == "nemotron":
        return tuple(n_head_kv[layer] == 0 and n_ff[layer] == 0 for layer in layers)
    if facts.recurrence == "interval":
        listed = keys.array("attention.recurrent_layers", n_layer)
        interval = max(1, keys.number("full_attention_interval", 4))
        return listed or tuple((layer + 1) % interval != 0 for layer in layers)
    return (False,) * n_layer


def _windows(
    facts: Architecture,
    keys: _Keys,
    name: str,
    n_layer: int,
    n_all: int,
    recurrent: Sequence[bool],
) -> tuple[tuple[bool, ...], int]:
    """Return which layers have a sliding window, and its length."""
    given = keys.number("attention.sliding_window")
    none = (False,) * n_all, 0
    if name in ("lfm2", "lfm2moe"):
        if not given or name == "lfm2moe":
            return none
        return tuple(not each for each in recurrent) + (False,) * (n_all - n_layer), given
    window = facts.window
    if window is None or (window.only_n_layer and n_layer != window.only_n_layer):
        return none
    n_window = window.n_window if window.is_fixed else given or window.n_window
    # Where there is a default, a file that says 0 (or for a few: nothing) has no window.
    says_none = keys.number("attention.sliding_window", -1) == 0
    if not n_window or says_none or (name == "smallthinker" and not given):
        return none
    listed = keys.array("attention.sliding_window_pattern", n_all)
    if listed is not None:
        return listed, n_window
    period = keys.number("attention.sliding_window_pattern", window.period)
    dense = 0 if window.dense_first else period - 1
    layers = tuple(period == 0 or layer % period != dense for layer in range(n_layer))
    return layers + (False,) * (n_all - n_layer), n_window


def _head_sizes(
    keys: _Keys, n_embd: int, n_head: Sequence[int], is_swa: Sequence[bool]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    default = n_embd // n_head[0] if n_head[0] else 0
    if not default:
        return (0,) * len(n_head), (0,) * len(n_head)
    full_k = keys.number("attention.key_length", default)
    full_v = keys.number("attention.value_length", default)
    swa_k = keys.number("attention.key_length_swa", full_k)
    swa_v = keys.number("attention.value_length_swa", full_v)
    return (
        tuple(swa_k if swa else full_k for swa in is_swa),
        tuple(swa_v if swa else full_v for swa in is_swa),
    )


def _with_kv(
    facts: Architecture,
    keys: _Keys,
    name: str,
    n_layer: int,
    n_all: int,
    recurrent: Sequence[bool],
    n_ff: Sequence[int],
) -> tuple[bool, ...]:
    first = n_all if facts.n_layer_with_kv is None else facts.n_layer_with_kv
    if name == "gemma4":
        first = n_all - keys.number("attention.shared_kv_layers")

    def has(layer: int) -> bool:
        if facts.is_encoder or facts.recurrence == "all" or layer >= min(n_layer, first):
            return False
        if facts.recurrence == "nemotron":
            return not recurrent[layer] and n_ff[layer] == 0
        return facts.recurrence == "both" or not recurrent[layer]

    return tuple(has(layer) for layer in range(n_all))


def _recurrent_sizes(keys: _Keys, n_embd: int, n_head: int) -> tuple[int, int]:
    """Return the elements of the two states (``llama_hparams::n_embd_r`` and ``n_embd_s``)."""
    inner, state = keys.number("ssm.inner_size"), keys.number("ssm.state_size")
    if wkv := keys.number("wkv.head_size"):
        return keys.number("token_shift_count", 2) * n_embd, n_embd * wkv
    if convolution := keys.number("shortconv.l_cache"):
        return n_embd * (convolution - 1), state * inner
    kernel = keys.number("ssm.conv_kernel")
    if kda := keys.number("kda.head_dim"):
        return 3 * (kernel - 1 if kernel else 3) * n_head * kda, kda * kda * n_head
    convolved = inner + 2 * keys.number("ssm.group_count") * state
    return max(0, kernel - 1) * convolved, state * inner
