"""How native code words it that memory has run out."""

from __future__ import annotations

import re
from typing import Final

# Of ggml's and llama.cpp's own messages, of CUDA, HIP, Vulkan and Metal, and of the C++ library.
_WORDS: Final = re.compile(
    r"(failed|unable) to alloc|alloc\w* failed|cannot allocate memory|bad_alloc"
    r"|insufficient memory|not enough memory|out ?of ?\w* ?memory",
    re.IGNORECASE,
)


def tells_of_shortage(text: str) -> bool:
    """Whether *text*, from the log of native code, says that there was not enough memory."""
    return _WORDS.search(text) is not None
