"""Our own reader of GGUF files: facts without llama.cpp, and without trusting the file."""

from llm_router_mw.gguf.cursor import ValueType
from llm_router_mw.gguf.ggml_types import GGML_TYPE_NUMBERS, GGML_TYPES, GGMLType, tensor_bytes
from llm_router_mw.gguf.header import GGUFArray, GGUFHeader, GGUFTensor
from llm_router_mw.gguf.prefix import MAX_PREFIX_BYTES, HeaderPrefix
from llm_router_mw.gguf.reader import read_header
from llm_router_mw.gguf.shards import (
    first_shard,
    part_names,
    read_headers,
    shard_stem,
    shards,
)

__all__ = [
    "GGML_TYPES",
    "GGML_TYPE_NUMBERS",
    "MAX_PREFIX_BYTES",
    "GGMLType",
    "GGUFArray",
    "GGUFHeader",
    "GGUFTensor",
    "HeaderPrefix",
    "ValueType",
    "first_shard",
    "part_names",
    "read_header",
    "read_headers",
    "shard_stem",
    "shards",
    "tensor_bytes",
]
