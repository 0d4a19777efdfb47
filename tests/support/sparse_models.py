"""Models of real sizes that take no room on disk: headers as the real files have, data as a hole.

llama.cpp dry-runs them all, and really loads those that would fit. They have no vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, ValueType, tensor_bytes
from llm_router_mw.testing.gguf import GGUFFile, Item, Tensor, array

_ALIGNMENT = 32
_SUPERBLOCK = 256
"""Elements of a block of the ``_k`` types; rows that are no multiple of it are kept in ``q8_0``."""


class _Plan:
    """Collects the metadata and tensors of one model."""

    def __init__(self, architecture: str, n_vocab: int, kind: str = "q4_k") -> None:
        self.architecture = architecture
        self.kind = kind
        self._metadata: dict[str | bytes, Item] = {
            "general.architecture": architecture,
            "tokenizer.ggml.model": "no_vocab",
        }
        self._tensors: list[Tensor] = []
        self.set(vocab_size=n_vocab)
        self.n_vocab = n_vocab

    def set(self, values: Mapping[str, Item | Sequence[int]] = {}, /, **more: Item) -> None:
        """Add metadata; names lack the architecture."""
        for name, value in {**values, **more}.items():
            item = value if isinstance(value, Item) else array(ValueType.INT32, value)
            self._metadata[f"{self.architecture}.{name}"] = item

    def body(
        self,
        n_layer: int,
        n_embd: int,
        n_ff: int,
        n_head: int,
        n_head_kv: int | Sequence[int],
        n_ctx: int,
        *,
        head: int = 0,
    ) -> None:
        """Add what most models say of themselves."""
        self.set(block_count=n_layer, context_length=n_ctx, embedding_length=n_embd)
        self.set({"feed_forward_length": n_ff, "attention.head_count": n_head})
        self.set({"attention.head_count_kv": n_head_kv})
        self.set({"attention.layer_norm_rms_epsilon": 1e-6})
        if head:
            self.set({"attention.key_length": head, "attention.value_length": head})

    def tensor(self, name: str, *shape: int, kind: str = "") -> None:
        """Add a tensor; ``shape[0]`` is the length of a row."""
        kind = kind or self.kind
        if kind.endswith("_k") and shape[0] % _SUPERBLOCK:
            kind = "q8_0"
        number = GGML_TYPE_NUMBERS[kind]
        size = tensor_bytes(number, shape)
        assert size is not None
        self._tensors.append(Tensor(name, shape, number, size))

    def plain(self, name: str, *shape: int) -> None:
        """Add a tensor that nobody quantises."""
        self.tensor(name, *shape, kind="f32")

    def vocabulary(self, n_embd: int, *, tied: bool = False, output: str = "q6_k") -> None:
        """Add the embedding, the last norm and the output."""
        self.tensor("token_embd.weight", n_embd, self.n_vocab)
        self.plain("output_norm.weight", n_embd)
        if not tied:
            self.tensor("output.weight", n_embd, self.n_vocab, kind=output)

    def attention(
        self,
        block: str,
        n_embd: int,
        n_head: int,
        n_head_kv: int,
        head: int,
        *,
        norms: bool = False,
        biases: bool = False,
    ) -> None:
        """Add queries, keys, values and output."""
        sizes = {"q": n_head * head, "k": n_head_kv * head, "v": n_head_kv * head}
        for part, size in sizes.items():
            self.tensor(f"{block}.attn_{part}.weight", n_embd, size)
            if biases:
                self.plain(f"{block}.attn_{part}.bias", size)
        self.tensor(f"{block}.attn_output.weight", n_head * head, n_embd)
        if norms:
            self.plain(f"{block}.attn_q_norm.weight", head)
            self.plain(f"{block}.attn_k_norm.weight", head)

    def feed_forward(self, block: str, n_embd: int, n_ff: int, norm: str = "ffn_norm") -> None:
        """Add a gated network."""
        self.plain(f"{block}.{norm}.weight", n_embd)
        self.tensor(f"{block}.ffn_gate.weight", n_embd, n_ff)
        self.tensor(f"{block}.ffn_up.weight", n_embd, n_ff)
        self.tensor(f"{block}.ffn_down.weight", n_ff, n_embd)

    def experts(self, block: str, n_embd: int, n_ff: int, count: int) -> None:
        """Add a router and gated experts."""
        self.plain(f"{block}.ffn_norm.weight", n_embd)
        self.plain(f"{block}.ffn_gate_inp.weight", n_embd, count)
        self.tensor(f"{block}.ffn_gate_exps.weight", n_embd, n_ff, count)
        self.tensor(f"{block}.ffn_up_exps.weight", n_embd, n_ff, count)
        self.tensor(f"{block}.ffn_down_exps.weight", n_ff, n_embd, count)

    def recurrence(self, block: str, n_embd: int, inner: int, heads: int, groups: int) -> None:
        """Add what Mamba's second version has."""
        convolved = inner + 2 * groups * 128
        self.tensor(f"{block}.ssm_in.weight", n_embd, inner + convolved + heads)
        self.plain(f"{block}.ssm_conv1d.weight", 4, convolved)
        self.plain(f"{block}.ssm_conv1d.bias", convolved)
        self.plain(f"{block}.ssm_dt.bias", heads)
        self.plain(f"{block}.ssm_a", 1, heads)
        self.plain(f"{block}.ssm_d", 1, heads)
        self.plain(f"{block}.ssm_norm.weight", inner // groups, groups)
        self.tensor(f"{block}.ssm_out.weight", inner, n_embd)

    def recurrent_body(self, inner: int, state: int, rank: int, groups: int = 0) -> None:
        """Add what recurrent models say of themselves."""
        self.set({"ssm.conv_kernel": 4, "ssm.inner_size": inner, "ssm.state_size": state})
        self.set({"ssm.time_step_rank": rank})
        if groups:
            self.set({"ssm.group_count": groups})

    def write(self, path: Path) -> None:
        """Write the header, and make the file as long as its tensors say."""
        header = GGUFFile(metadata=self._metadata, tensors=self._tensors).header()
        sizes = [tensor.size_bytes for tensor in self._tensors]
        data = sum(size + -size % _ALIGNMENT for size in sizes)
        path.write_bytes(header)
        os.truncate(path, len(header) + -len(header) % _ALIGNMENT + data)


def _dense(
    architecture: str,
    n_vocab: int,
    n_layer: int,
    n_embd: int,
    n_ff: int,
    n_head: int,
    n_head_kv: int,
    *,
    head: int = 0,
    tied: bool = False,
    kind: str = "q4_k",
    norms: bool = False,
    biases: bool = False,
) -> _Plan:
    plan = _Plan(architecture, n_vocab, kind)
    plan.body(n_layer, n_embd, n_ff, n_head, n_head_kv, 131_072, head=head)
    head = head or n_embd // n_head
    if architecture == "llama":
        plan.set({"rope.dimension_count": head})
        plan.plain("rope_freqs.weight", head // 2)
    plan.vocabulary(n_embd, tied=tied)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        plan.attention(block, n_embd, n_head, n_head_kv, head, norms=norms, biases=biases)
        plan.feed_forward(block, n_embd, n_ff)
    return plan


def _gemma(
    architecture: str,
    n_vocab: int,
    n_layer: int,
    n_embd: int,
    n_ff: int,
    n_head: int,
    n_head_kv: int,
    head: int,
    n_window: int,
) -> _Plan:
    plan = _Plan(architecture, n_vocab, "q4_0")
    plan.body(n_layer, n_embd, n_ff, n_head, n_head_kv, 131_072, head=head)
    plan.set({"attention.sliding_window": n_window})
    plan.vocabulary(n_embd, tied=True)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        norms = architecture == "gemma3"
        plan.attention(block, n_embd, n_head, n_head_kv, head, norms=norms)
        plan.plain(f"{block}.post_attention_norm.weight", n_embd)
        plan.feed_forward(block, n_embd, n_ff)
        plan.plain(f"{block}.post_ffw_norm.weight", n_embd)
    return plan


def _qwen3moe(
    n_layer: int, n_embd: int, n_head: int, n_head_kv: int, n_ff: int, count: int
) -> _Plan:
    plan = _Plan("qwen3moe", 151_936)
    plan.body(n_layer, n_embd, 3 * n_embd, n_head, n_head_kv, 40_960, head=128)
    plan.set(expert_count=count, expert_used_count=8, expert_feed_forward_length=n_ff)
    plan.vocabulary(n_embd)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        plan.attention(block, n_embd, n_head, n_head_kv, 128, norms=True)
        plan.experts(block, n_embd, n_ff, count)
    return plan


def _gpt_oss(n_layer: int, count: int) -> _Plan:
    n_embd, n_head = 2880, 64
    plan = _Plan("gpt-oss", 201_088, "q8_0")
    plan.body(n_layer, n_embd, n_embd, n_head, 8, 131_072, head=64)
    plan.set({"attention.sliding_window": 128, "expert_feed_forward_length": n_embd})
    plan.set(expert_count=count, expert_used_count=4)
    plan.vocabulary(n_embd, output="q8_0")
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        plan.attention(block, n_embd, n_head, 8, 64, biases=True)
        plan.plain(f"{block}.attn_output.bias", n_embd)
        plan.plain(f"{block}.attn_sinks.weight", n_head)
        plan.plain(f"{block}.post_attention_norm.weight", n_embd)
        plan.plain(f"{block}.ffn_gate_inp.weight", n_embd, count)
        plan.plain(f"{block}.ffn_gate_inp.bias", count)
        for part in ("gate", "up", "down"):
            name = f"{block}.ffn_{part}_exps"
            plan.tensor(f"{name}.weight", n_embd, n_embd, count, kind="mxfp4")
            plan.plain(f"{name}.bias", n_embd, count)
    return plan


def _deepseek(
    n_vocab: int,
    n_layer: int,
    n_embd: int,
    n_head: int,
    n_ff: int,
    expert: int,
    *,
    count: int,
    used: int,
    shared: int,
    n_dense: int,
    n_query: int = 0,
) -> _Plan:
    latent, rope, nope, values = 512, 64, 128, 128
    plan = _Plan("deepseek2", n_vocab)
    plan.body(n_layer, n_embd, n_ff, n_head, 1, 163_840)
    plan.set({"attention.key_length": latent + rope, "attention.value_length": latent})
    plan.set({"attention.key_length_mla": nope + rope, "attention.value_length_mla": values})
    plan.set({"rope.dimension_count": rope, "attention.kv_lora_rank": latent})
    plan.set(expert_count=count, expert_used_count=used, expert_shared_count=shared)
    plan.set(expert_feed_forward_length=expert, leading_dense_block_count=n_dense)
    if n_query:
        plan.set({"attention.q_lora_rank": n_query})
    plan.vocabulary(n_embd)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        n_queries = n_head * (nope + rope)
        if n_query:
            plan.tensor(f"{block}.attn_q_a.weight", n_embd, n_query)
            plan.plain(f"{block}.attn_q_a_norm.weight", n_query)
            plan.tensor(f"{block}.attn_q_b.weight", n_query, n_queries)
        else:
            plan.tensor(f"{block}.attn_q.weight", n_embd, n_queries)
        plan.tensor(f"{block}.attn_kv_a_mqa.weight", n_embd, latent + rope)
        plan.plain(f"{block}.attn_kv_a_norm.weight", latent)
        plan.tensor(f"{block}.attn_k_b.weight", nope, latent, n_head, kind="q8_0")
        plan.tensor(f"{block}.attn_v_b.weight", latent, values, n_head, kind="q8_0")
        plan.tensor(f"{block}.attn_output.weight", n_head * values, n_embd)
        if layer < n_dense:
            plan.feed_forward(block, n_embd, n_ff)
            continue
        plan.experts(block, n_embd, expert, count)
        plan.tensor(f"{block}.ffn_gate_shexp.weight", n_embd, expert * shared)
        plan.tensor(f"{block}.ffn_up_shexp.weight", n_embd, expert * shared)
        plan.tensor(f"{block}.ffn_down_shexp.weight", expert * shared, n_embd)
    return plan


def _mamba2(n_layer: int, n_embd: int, inner: int, heads: int, groups: int) -> _Plan:
    plan = _Plan("mamba2", 32_768, "q8_0")
    plan.body(n_layer, n_embd, 0, 0, 0, 1_048_576)
    plan.recurrent_body(inner, 128, heads, groups)
    plan.vocabulary(n_embd, output="q8_0")
    for layer in range(n_layer):
        plan.plain(f"blk.{layer}.attn_norm.weight", n_embd)
        plan.recurrence(f"blk.{layer}", n_embd, inner, heads, groups)
    return plan


def _granite(n_layer: int, n_embd: int, n_ff: int, inner: int, heads: int) -> _Plan:
    plan = _Plan("granitehybrid", 100_352)
    n_head = n_embd // 128
    n_head_kv = 8 if n_head % 8 == 0 else 4
    dense = [layer % 10 == 5 for layer in range(n_layer)]
    plan.body(n_layer, n_embd, n_ff, n_head, [n_head_kv * each for each in dense], 131_072)
    plan.set({"rope.dimension_count": 128, "rope.scaling.finetuned": False})
    plan.recurrent_body(inner, 128, heads, 1)
    plan.vocabulary(n_embd, tied=True)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        if dense[layer]:
            plan.attention(block, n_embd, n_head, n_head_kv, 128)
        else:
            plan.recurrence(block, n_embd, inner, heads, 1)
        plan.feed_forward(block, n_embd, n_ff)
    return plan


def _qwen35(n_layer: int, n_embd: int, n_ff: int, n_head: int, inner: int) -> _Plan:
    head, n_head_kv, state, groups = 256, 4, 128, 16
    heads = inner // state
    plan = _Plan("qwen35", 248_320)
    plan.body(n_layer, n_embd, n_ff, n_head, n_head_kv, 262_144, head=head)
    plan.set({"rope.dimension_count": 64, "rope.dimension_sections": [11, 11, 10, 0]})
    plan.set(full_attention_interval=4)
    plan.recurrent_body(inner, state, heads, groups)
    plan.vocabulary(n_embd)
    n_mixed = 2 * groups * state + inner
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        if (layer + 1) % 4 == 0:
            plan.tensor(f"{block}.attn_q.weight", n_embd, 2 * n_head * head)
            plan.tensor(f"{block}.attn_k.weight", n_embd, n_head_kv * head)
            plan.tensor(f"{block}.attn_v.weight", n_embd, n_head_kv * head)
            plan.tensor(f"{block}.attn_output.weight", n_head * head, n_embd)
            plan.plain(f"{block}.attn_q_norm.weight", head)
            plan.plain(f"{block}.attn_k_norm.weight", head)
        else:
            plan.tensor(f"{block}.attn_qkv.weight", n_embd, n_mixed)
            plan.tensor(f"{block}.attn_gate.weight", n_embd, inner)
            plan.plain(f"{block}.ssm_conv1d.weight", 4, n_mixed)
            plan.plain(f"{block}.ssm_dt.bias", heads)
            plan.plain(f"{block}.ssm_a", heads)
            plan.tensor(f"{block}.ssm_beta.weight", n_embd, heads)
            plan.tensor(f"{block}.ssm_alpha.weight", n_embd, heads)
            plan.plain(f"{block}.ssm_norm.weight", state)
            plan.tensor(f"{block}.ssm_out.weight", inner, n_embd)
        plan.feed_forward(block, n_embd, n_ff, "post_attention_norm")
    return plan


def _bert(n_vocab: int, n_layer: int, n_embd: int, n_ff: int, n_head: int, n_ctx: int) -> _Plan:
    plan = _Plan("bert", n_vocab, "f16")
    plan.body(n_layer, n_embd, n_ff, n_head, n_head, n_ctx)
    plan.set({"attention.layer_norm_epsilon": 1e-12, "attention.causal": False, "pooling_type": 2})
    plan._metadata["tokenizer.ggml.token_type_count"] = 1
    plan.tensor("token_embd.weight", n_embd, n_vocab)
    plan.plain("position_embd.weight", n_embd, n_ctx)
    plan.plain("token_types.weight", n_embd, 1)
    norms = ["token_embd_norm"]
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.attention(block, n_embd, n_head, n_head, n_embd // n_head, biases=True)
        plan.plain(f"{block}.attn_output.bias", n_embd)
        plan.tensor(f"{block}.ffn_up.weight", n_embd, n_ff)
        plan.plain(f"{block}.ffn_up.bias", n_ff)
        plan.tensor(f"{block}.ffn_down.weight", n_ff, n_embd)
        plan.plain(f"{block}.ffn_down.bias", n_embd)
        norms += [f"{block}.attn_output_norm", f"{block}.layer_output_norm"]
    for norm in norms:
        plan.plain(f"{norm}.weight", n_embd)
        plan.plain(f"{norm}.bias", n_embd)
    return plan


def _phi3(n_layer: int, n_embd: int, n_ff: int, n_head: int, n_head_kv: int) -> _Plan:
    plan = _Plan("phi3", 100_352)
    head = n_embd // n_head
    plan.body(n_layer, n_embd, n_ff, n_head, n_head_kv, 131_072)
    plan.set({"rope.dimension_count": head, "attention.sliding_window": 131_072})
    plan.set({"rope.scaling.original_context_length": 4096})
    plan.vocabulary(n_embd)
    plan.plain("rope_factors_long.weight", head // 2)
    plan.plain("rope_factors_short.weight", head // 2)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        plan.tensor(f"{block}.attn_qkv.weight", n_embd, (n_head + 2 * n_head_kv) * head)
        plan.tensor(f"{block}.attn_output.weight", n_embd, n_embd)
        plan.plain(f"{block}.ffn_norm.weight", n_embd)
        plan.tensor(f"{block}.ffn_up.weight", n_embd, 2 * n_ff)
        plan.tensor(f"{block}.ffn_down.weight", n_ff, n_embd)
    return plan


def _lfm2(n_embd: int, n_ff: int, n_head: int) -> _Plan:
    n_layer, dense, n_head_kv = 16, {2, 5, 8, 10, 12, 14}, 8
    head = n_embd // n_head
    plan = _Plan("lfm2", 65_536, "q8_0")
    kv_heads = [n_head_kv if layer in dense else 0 for layer in range(n_layer)]
    plan.body(n_layer, n_embd, n_ff, n_head, kv_heads, 128_000)
    plan.set({"shortconv.l_cache": 3})
    plan.tensor("token_embd.weight", n_embd, plan.n_vocab)
    plan.plain("token_embd_norm.weight", n_embd)
    for layer in range(n_layer):
        block = f"blk.{layer}"
        plan.plain(f"{block}.attn_norm.weight", n_embd)
        if layer in dense:
            plan.attention(block, n_embd, n_head, n_head_kv, head, norms=True)
        else:
            plan.plain(f"{block}.shortconv.conv.weight", 3, n_embd)
            plan.tensor(f"{block}.shortconv.in_proj.weight", n_embd, 3 * n_embd)
            plan.tensor(f"{block}.shortconv.out_proj.weight", n_embd, n_embd)
        plan.feed_forward(block, n_embd, n_ff)
    return plan


_PLANS: dict[str, Callable[[], _Plan]] = {
    "llama-1b": lambda: _dense("llama", 128_256, 16, 2048, 8192, 32, 8, tied=True, kind="q8_0"),
    "llama-8b": lambda: _dense("llama", 128_256, 32, 4096, 14_336, 32, 8),
    "llama-70b": lambda: _dense("llama", 128_256, 80, 8192, 28_672, 64, 8),
    "llama-405b": lambda: _dense("llama", 128_256, 126, 16_384, 53_248, 128, 8),
    "mistral-24b": lambda: _dense("llama", 131_072, 40, 5120, 32_768, 32, 8, head=128),
    "qwen2-0.5b": lambda: _dense(
        "qwen2", 151_936, 24, 896, 4864, 14, 2, tied=True, kind="q8_0", biases=True
    ),
    "qwen2-7b": lambda: _dense("qwen2", 152_064, 28, 3584, 18_944, 28, 4, biases=True),
    "qwen3-8b": lambda: _dense("qwen3", 151_936, 36, 4096, 12_288, 32, 8, head=128, norms=True),
    "qwen3-32b": lambda: _dense("qwen3", 151_936, 64, 5120, 25_600, 64, 8, head=128, norms=True),
    "qwen3-30b-a3b": lambda: _qwen3moe(48, 2048, 32, 4, 768, 128),
    "qwen3-235b-a22b": lambda: _qwen3moe(94, 4096, 64, 4, 1536, 128),
    "gemma2-9b": lambda: _gemma("gemma2", 256_000, 42, 3584, 14_336, 16, 8, 256, 4096),
    "gemma3-4b": lambda: _gemma("gemma3", 262_144, 34, 2560, 10_240, 8, 4, 256, 1024),
    "gemma3-27b": lambda: _gemma("gemma3", 262_144, 62, 5376, 21_504, 32, 16, 128, 1024),
    "gpt-oss-20b": lambda: _gpt_oss(24, 32),
    "gpt-oss-120b": lambda: _gpt_oss(36, 128),
    "deepseek2-lite": lambda: _deepseek(
        102_400, 27, 2048, 16, 10_944, 1408, count=64, used=6, shared=2, n_dense=1
    ),
    "deepseek3-671b": lambda: _deepseek(
        129_280, 61, 7168, 128, 18_432, 2048, count=256, used=8, shared=1, n_dense=3, n_query=1536
    ),
    "mamba2-1.3b": lambda: _mamba2(48, 2048, 4096, 64, 1),
    "mamba2-7b": lambda: _mamba2(64, 4096, 8192, 128, 8),
    "granite-1b": lambda: _granite(40, 1536, 4096, 3072, 48),
    "granite-8b": lambda: _granite(40, 4096, 12_800, 8192, 128),
    "qwen35-4b": lambda: _qwen35(32, 2560, 9216, 16, 4096),
    "qwen35-27b": lambda: _qwen35(64, 5120, 17_408, 24, 6144),
    "minilm": lambda: _bert(30_522, 6, 384, 1536, 12, 512),
    "bge-m3": lambda: _bert(250_002, 24, 1024, 4096, 16, 8192),
    "phi3-14b": lambda: _phi3(40, 5120, 17_920, 40, 10),
    "lfm2-1.2b": lambda: _lfm2(2048, 8192, 32),
    "broken": lambda: _dense("llama", 32_000, 2, 1536, 4096, 12, 8),
}
BROKEN = "broken"
"""Name of one that llama.cpp aborts on: its heads cannot share their keys."""
SPARSE_MODELS = tuple(name for name in _PLANS if name != BROKEN)
"""What can be written: fifteen architectures, from 20 million to 671 billion weights."""
ENCODERS = frozenset({"minilm", "bge-m3"})
"""Those that give embeddings only."""


def write_sparse_model(path: Path, name: str) -> Path:
    """Write the model *name*, of :data:`SPARSE_MODELS` or ``BROKEN``, and return its path."""
    _PLANS[name]().write(path)
    return path
