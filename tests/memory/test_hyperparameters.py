"""The shape of a model, as llama.cpp reads it from the same keys."""

from __future__ import annotations

import msgspec
import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf import GGUFArray, ValueType
from llm_router_mw.memory.feed_forward import FeedForward
from llm_router_mw.memory.hyperparameters import Hyperparameters, read_hyperparameters
from tests.support.model_headers import Metadata, Tensors, header


def read(architecture: str = "llama", **metadata: object) -> Hyperparameters:
    named = {key.replace("__", "."): value for key, value in metadata.items()}
    return read_hyperparameters(header(architecture, named))  # type: ignore[arg-type]


def test_a_dense_decoder() -> None:
    shape = read()
    assert (shape.n_layer, shape.n_embd, shape.n_vocab) == (4, 1024, 32_000)
    assert shape.n_head == (16,) * 4
    assert shape.n_embd_k == shape.n_embd_v == (256,) * 4
    assert shape.has_kv == (True,) * 4
    assert not any(shape.is_swa)
    assert not any(shape.is_recurrent)
    assert shape.is_causal
    assert not shape.is_mla


def test_every_head_has_its_own_keys_unless_the_file_says_otherwise() -> None:
    base = {"block_count": 2, "embedding_length": 512, "attention.head_count": 8}
    assert read_hyperparameters(header(base=base)).n_embd_k == (512, 512)


def test_heads_may_be_of_another_size_than_their_part_of_the_embedding() -> None:
    shape = read(attention__key_length=128, attention__value_length=96)
    assert (shape.n_embd_k[0], shape.n_embd_v[0]) == (512, 384)


def test_numbers_may_be_said_for_each_layer() -> None:
    shape = read("deci", attention__head_count_kv=(4, 0, 2, 1), feed_forward_length=(8, 16, 32))
    assert shape.n_embd_k == (256, 0, 128, 64)
    assert [network.n_ff for network in shape.feed_forward] == [8, 16, 32, 0]


def test_a_vocabulary_counts_more_than_its_announced_size() -> None:
    described = header()
    tokens = GGUFArray(ValueType.STRING, 151_936)
    described = msgspec.structs.replace(
        described, metadata={**described.metadata, "tokenizer.ggml.tokens": tokens}
    )
    assert read_hyperparameters(described).n_vocab == 151_936


@pytest.mark.parametrize(
    ("architecture", "metadata", "windows", "n_swa"),
    [
        ("gemma2", {}, "sdsd", 4096),
        ("gemma2", {"attention.sliding_window": 512}, "sdsd", 512),
        ("gemma3", {}, "dddd", 0),
        ("gemma3", {"attention.sliding_window": 512}, "ssss", 512),
        (
            "gemma3",
            {"attention.sliding_window": 512, "attention.sliding_window_pattern": 3},
            "ssds",
            512,
        ),
        ("gpt-oss", {"attention.sliding_window": 128}, "sdsd", 128),
        ("cohere2moe", {"attention.sliding_window": 128}, "dsss", 128),
        ("llama4", {}, "sssd", 8192),
        ("llama4", {"attention.sliding_window": 0}, "dddd", 0),
        ("smallthinker", {"attention.sliding_window": 512}, "dsss", 4096),
        ("smallthinker", {}, "dddd", 0),
        ("phi3", {"attention.sliding_window": 2048}, "dddd", 0),
        ("exaone4", {"attention.sliding_window": 2048}, "dddd", 0),
        ("exaone4", {"attention.sliding_window": 2048, "block_count": 64}, "sssd" * 16, 2048),
        (
            "gemma4",
            {
                "attention.sliding_window": 512,
                "attention.sliding_window_pattern": (True, True, True, False),
            },
            "sssd",
            512,
        ),
        (
            "lfm2",
            {"attention.sliding_window": 64, "attention.head_count_kv": (4, 0, 0, 4)},
            "sdds",
            64,
        ),
        ("lfm2", {"attention.head_count_kv": (4, 0, 0, 4)}, "dddd", 0),
        ("lfm2moe", {"attention.sliding_window": 64}, "dddd", 0),
        ("llama", {"attention.sliding_window": 64}, "dddd", 0),
    ],
)
def test_layers_with_a_sliding_window(
    architecture: str, metadata: Metadata, windows: str, n_swa: int
) -> None:
    shape = read_hyperparameters(header(architecture, metadata))
    assert "".join("s" if swa else "d" for swa in shape.is_swa) == windows
    assert shape.n_swa == n_swa


def test_heads_of_sliding_layers_may_be_of_another_size() -> None:
    shape = read_hyperparameters(
        header(
            "gemma4",
            {
                "attention.sliding_window": 512,
                "attention.sliding_window_pattern": (True, False, True, False),
                "attention.key_length": 512,
                "attention.key_length_swa": 256,
            },
        )
    )
    assert shape.head_k == (256, 512, 256, 512)


@pytest.mark.parametrize(
    ("architecture", "metadata", "recurrent", "cached"),
    [
        ("mamba2", {"attention.head_count": 0}, "rrrr", "----"),
        ("jamba", {"attention.head_count_kv": (0, 4, 0, 0)}, "r-rr", "-k--"),
        ("falcon-h1", {}, "rrrr", "kkkk"),
        ("qwen35", {}, "rrr-", "---k"),
        ("qwen35", {"full_attention_interval": 2}, "r-r-", "-k-k"),
        ("qwen35", {"attention.recurrent_layers": (True, False, True, True)}, "r-rr", "-k--"),
        (
            "nemotron_h",
            {"attention.head_count_kv": (0, 4, 0, 4), "feed_forward_length": (0, 0, 64, 64)},
            "r---",
            "-k--",
        ),
        ("bert", {}, "----", "----"),
        ("gemma4", {"attention.shared_kv_layers": 3}, "----", "k---"),
        ("gemma3n", {"block_count": 30}, "-" * 30, "k" * 20 + "-" * 10),
    ],
)
def test_which_layers_have_which_memory(
    architecture: str, metadata: Metadata, recurrent: str, cached: str
) -> None:
    shape = read_hyperparameters(header(architecture, metadata))
    assert "".join("r" if each else "-" for each in shape.is_recurrent) == recurrent
    assert "".join("k" if each else "-" for each in shape.has_kv) == cached


def test_layers_for_drafting_are_not_computed() -> None:
    shape = read("glm4moe", nextn_predict_layers=1)
    assert (shape.n_layer, shape.n_layer_all) == (3, 4)
    assert shape.has_kv == (True, True, True, False)


def test_a_file_of_nothing_but_layers_for_drafting_has_them_all() -> None:
    assert read("glm4moe", nextn_predict_layers=4).n_layer == 4


@pytest.mark.parametrize(
    ("metadata", "sizes"),
    [
        (
            {"ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 16},
            (3 * 64, 16 * 64),
        ),
        (
            {
                "ssm.conv_kernel": 4,
                "ssm.inner_size": 64,
                "ssm.state_size": 16,
                "ssm.group_count": 2,
            },
            (3 * (64 + 2 * 2 * 16), 16 * 64),
        ),
        ({"wkv.head_size": 64}, (2 * 1024, 64 * 1024)),
        ({"wkv.head_size": 64, "token_shift_count": 1}, (1024, 64 * 1024)),
        ({"shortconv.l_cache": 3}, (2 * 1024, 0)),
        ({"kda.head_dim": 8}, (3 * 3 * 16 * 8, 8 * 8 * 16)),
        ({"kda.head_dim": 8, "ssm.conv_kernel": 3}, (3 * 2 * 16 * 8, 8 * 8 * 16)),
    ],
)
def test_sizes_of_recurrent_states(metadata: Metadata, sizes: tuple[int, int]) -> None:
    shape = read_hyperparameters(header("mamba2", metadata))
    assert (shape.n_embd_r, shape.n_embd_s) == sizes


def test_a_latent_vector_holds_keys_and_values() -> None:
    shape = read("deepseek2", attention__key_length_mla=192, attention__value_length_mla=128)
    assert shape.is_mla
    assert not read("deepseek2", attention__key_length_mla=192).is_mla


def test_experts_as_the_metadata_says() -> None:
    shape = read("qwen3moe", expert_count=8, expert_used_count=2, expert_feed_forward_length=64)
    assert (shape.n_expert, shape.n_expert_used[0]) == (8, 2)
    assert shape.feed_forward[0] == FeedForward(n_ff=4096, n_ff_exp=64)
    older = read("llama", expert_count=8, expert_used_count=2)
    assert older.feed_forward[0].n_ff_exp == 4096
    shared = read("deepseek2", expert_feed_forward_length=64, expert_shared_count=2)
    assert shared.feed_forward[0].n_ff_shared == 128
    named = read("deepseek2", expert_shared_feed_forward_length=96)
    assert named.feed_forward[0].n_ff_shared == 96


def test_the_matrices_themselves_say_it_better() -> None:
    tensors: Tensors = {"blk.1.ffn_up.weight": ("f32", (1024, 512))}
    first, second = header(), header(tensors=tensors)
    shape = read_hyperparameters(first, second)
    assert [network.n_ff for network in shape.feed_forward] == [0, 512, 0, 0]


def test_what_is_unknown_is_taken_for_a_plain_decoder_that_says_so() -> None:
    shape = read("brand-new")
    assert not shape.architecture.is_known
    assert shape.has_kv == (True,) * 4


def test_a_file_without_an_architecture_is_no_model() -> None:
    nameless = msgspec.structs.replace(header(), metadata={})
    with pytest.raises(ModelFileError, match="names no architecture"):
        read_hyperparameters(nameless)


@pytest.mark.parametrize(
    "metadata", [{"block_count": 0}, {"block_count": 513}, {"embedding_length": 0}]
)
def test_impossible_sizes_are_refused(metadata: Metadata) -> None:
    with pytest.raises(ModelFileError, match="it is not a language model, or it is damaged"):
        read_hyperparameters(header(metadata=metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {"attention.head_count": -3},
        {"attention.head_count": 0},
        {"attention.head_count": "many"},
        {"attention.head_count_kv": (-1, 2, 3, 4)},
        {"full_attention_interval": 0},
        {"nextn_predict_layers": 99},
        {"context_length": 1.5},
    ],
)
def test_no_size_is_ever_negative(metadata: Metadata) -> None:
    shape = read_hyperparameters(header("qwen35", metadata))
    numbers = [value for value in msgspec.structs.astuple(shape) if isinstance(value, int)]
    assert min(*numbers, *shape.n_head, *shape.n_head_kv, *shape.n_embd_k) >= 0


def test_an_empty_array_is_nothing() -> None:
    described = header()
    empty = GGUFArray(ValueType.INT32, 0, ())
    named = {**described.metadata, "llama.attention.head_count": empty, "llama.vocab_size": empty}
    shape = read_hyperparameters(msgspec.structs.replace(described, metadata=named))
    assert (shape.n_head, shape.n_vocab) == ((0,) * 4, 0)
