"""What a context's buffers hold, asked of llama.cpp itself.

llama.cpp tells that in C++ only, as a ``std::map`` by value. It is read here by its layout in GNU's
library; where that is another one, it cannot be read. Nothing that is found is believed before it
has been checked, and no address is followed that is not mapped. The map is never freed: a few
hundred bytes for each call.
"""

from __future__ import annotations

import ctypes
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from llm_router_mw.context_shape import ContextShape
from llm_router_mw.engine.backends import buffer_owner
from llm_router_mw.engine.native import llama
from llm_router_mw.types import HOST, BufferMemory

_SYMBOL: Final = "_Z26llama_get_memory_breakdownPK13llama_context"
_MAPS: Final = Path("/proc/self/maps")
_READABLE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r")
_OTHER_RUNTIME: Final = re.compile(r"/libc\+\+[^/]*$", re.MULTILINE)
_MAX_ENTRIES: Final = 256
"""Buffer types of a process; there are a handful for each device."""
_MAX_BYTES: Final = 1 << 50


class BreakdownError(Exception):
    """The breakdown cannot be read here; the message says why."""


class _Map(ctypes.Structure):
    """``std::map``: the header of a red-black tree, whose parent is the root."""

    _fields_ = [
        ("compare", ctypes.c_size_t),
        ("color", ctypes.c_size_t),
        ("root", ctypes.c_size_t),
        ("leftmost", ctypes.c_size_t),
        ("rightmost", ctypes.c_size_t),
        ("count", ctypes.c_size_t),
    ]


class _Node(ctypes.Structure):
    """A node of the tree: its links, a buffer type, and ``llama_memory_breakdown_data``."""

    _fields_ = [
        ("color", ctypes.c_size_t),
        ("parent", ctypes.c_size_t),
        ("left", ctypes.c_size_t),
        ("right", ctypes.c_size_t),
        ("buffer_type", ctypes.c_size_t),
        ("model", ctypes.c_size_t),
        ("context", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    ]


class _Mapped:
    """The readable memory of this process."""

    def __init__(self) -> None:
        try:
            maps = _MAPS.read_text()
        except OSError as error:
            raise BreakdownError(
                f"memory maps of the process cannot be read: {error.strerror}"
            ) from error
        if _OTHER_RUNTIME.search(maps):
            raise BreakdownError("llama.cpp was built with another C++ library than GNU's")
        self._ranges = [(int(start, 16), int(end, 16)) for start, end in _READABLE.findall(maps)]

    def check(self, address: int, size: int) -> None:
        """Raise ``BreakdownError`` unless *size* bytes at *address* can be read."""
        if not any(start <= address and address + size <= end for start, end in self._ranges):
            raise BreakdownError("llama.cpp answers in a layout that is not known")


def read_breakdown(context: Any, model: Any) -> tuple[BufferMemory, ...]:
    """Return what each type of buffer holds of *context* and *model*, both pointers.

    The output buffer is none of them; see :func:`output_memory`.

    Raises:
        BreakdownError: the answer cannot be read.
    """
    function = getattr(llama._lib, _SYMBOL, None)
    if function is None:
        raise BreakdownError("this build of llama.cpp does not tell what its buffers hold")
    mapped = _Mapped()
    function.restype, function.argtypes = _Map, [ctypes.c_void_p]
    found = tuple(_buffer(node, mapped) for node in _nodes(function(context), mapped))
    weights, file = sum(each.weights_bytes for each in found), llama.llama_model_size(model)
    # Not all tensors of a file need be loaded; at least half of them always are.
    if weights < file // 2:
        raise BreakdownError(f"{weights} bytes of weights are too few for a file of {file}")
    return found


def output_memory(context: Any, model: Any, shape: ContextShape) -> BufferMemory:
    """Return the buffer that the results of a step of *shape* are copied to.

    llama.cpp begins with one row for each sequence, and enlarges it for what steps really put out.
    It has logits in it even for a model that only embeds.
    """
    rows = max(shape.n_outputs_max or shape.n_batch, llama.llama_n_seq_max(context))
    width = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    if shape.embeddings:
        width += llama.llama_model_n_embd_out(model)
    size = rows * width * ctypes.sizeof(ctypes.c_float)
    return BufferMemory(buffer_type="output", device=HOST, compute_bytes=size)


def _nodes(tree: _Map, mapped: _Mapped) -> Iterator[_Node]:
    """Yield the nodes in whatever order; a tree that is none is found out before its end."""
    if not 0 < tree.count <= _MAX_ENTRIES:
        raise BreakdownError(f"llama.cpp answers with {tree.count} buffer types")
    ahead, seen = [tree.root], 0
    while ahead:
        address, seen = ahead.pop(), seen + 1
        if seen > tree.count:
            break
        mapped.check(address, ctypes.sizeof(_Node))
        node = _Node.from_address(address)
        ahead += [link for link in (node.left, node.right) if link]
        yield node
    if seen != tree.count:
        raise BreakdownError(f"llama.cpp announces {tree.count} buffer types, there are others")


def _buffer(node: _Node, mapped: _Mapped) -> BufferMemory:
    mapped.check(node.buffer_type, 8)
    sizes = (node.model, node.context, node.compute)
    if max(sizes) > _MAX_BYTES:
        raise BreakdownError(f"a buffer type holds {max(sizes)} bytes")
    name, owner = buffer_owner(node.buffer_type)
    if not name or not set(name) <= set(string.printable):
        raise BreakdownError("a buffer type has no readable name")
    return BufferMemory(
        buffer_type=name,
        device=owner,
        weights_bytes=node.model,
        context_bytes=node.context,
        compute_bytes=node.compute,
    )
