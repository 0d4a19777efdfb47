"""Which words of native code mean that memory was lacking."""

from __future__ import annotations

import pytest

from llm_router_mw.shortage import tells_of_shortage


@pytest.mark.parametrize(
    "text",
    [
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 48828.12 MB)",
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 5120",
        "alloc_tensor_range: failed to allocate CUDA0 buffer of size 5120",
        "llama_init_from_model: failed to initialize the context: std::bad_alloc",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9 MiB: cudaMalloc failed: "
        "out of memory",
        "CUDA error: out of memory",
        "ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "mmap failed: Cannot allocate memory",
        "unable to allocate CPU buffer",
    ],
)
def test_a_lack_of_memory_is_known_by_its_words(text: str) -> None:
    assert tells_of_shortage(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gguf_init_from_file_impl: invalid magic characters: 'once', expected 'GGUF'",
        "llama_model_load: error loading model: missing tensor 'token_embd.weight'",
        "llama_init_from_model: V cache quantization requires flash_attn",
        "llama_context: n_ctx_seq (2000) > n_ctx_train (1000)",
        "decode: failed to find a memory slot for batch of size 4",
    ],
)
def test_other_trouble_is_not_taken_for_it(text: str) -> None:
    assert not tells_of_shortage(text)
