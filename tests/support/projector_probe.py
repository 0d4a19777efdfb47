"""Asks llama.cpp, in a process of its own, what a projector's buffers hold: no weights are read."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KNOWN_VERSION = "0.3.36"
"""Of llama-cpp-python: what is called here is no part of llama.cpp's interface, and may change."""


class _Parameters(ctypes.Structure):
    """``clip_context_params``."""

    _fields_ = [
        ("use_gpu", ctypes.c_bool),
        ("device", ctypes.c_void_p),
        ("flash_attn_type", ctypes.c_int),
        ("image_min_tokens", ctypes.c_int),
        ("image_max_tokens", ctypes.c_int),
        ("warmup", ctypes.c_bool),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
    ]


class _Contexts(ctypes.Structure):
    """``clip_init_result``: of vision, audio, and audio that is made."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("vision", "audio", "made_audio")]


class _Map(ctypes.Structure):
    """``std::map`` in GNU's library."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("compare", "color", "root", "leftmost", "rightmost", "count")
    ]


class _Node(ctypes.Structure):
    """Its node: links, the device and its bytes."""

    _fields_ = [
        (name, ctypes.c_size_t) for name in ("color", "parent", "left", "right", "device", "bytes")
    ]


def ask(questions: Sequence[tuple[Path, bool]]) -> list[tuple[int, int]]:
    """Return the bytes of weights and of scratch memory of projectors.

    Each comes with whether flash attention is used. A process of its own answers.
    """
    arguments = [str(each) for path, flash in questions for each in (path, int(flash))]
    answer = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    assert answer.returncode == 0, answer.stderr.decode()[-2000:]
    return [(weights, total - weights) for weights, total in json.loads(answer.stdout)]


def main() -> None:
    """Print the bytes with and without scratch memory of each file that is named, as JSON."""
    from llama_cpp import mtmd_cpp

    library = mtmd_cpp._libmtmd
    initialise = library._Z9clip_initPKc19clip_context_params
    initialise.argtypes, initialise.restype = [ctypes.c_char_p, _Parameters], _Contexts
    usage = library._Z18clip_get_mem_usagePK8clip_ctx
    usage.argtypes, usage.restype = [ctypes.c_void_p], _Map
    free = library._Z9clip_freeP8clip_ctx
    free.argtypes = [ctypes.c_void_p]
    found = []
    for path, flash in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        totals = []
        for warmup in (False, True):
            parameters = _Parameters(
                flash_attn_type=int(flash), warmup=warmup, no_alloc=True, image_max_tokens=-1
            )
            contexts = initialise(path.encode(), parameters)
            total = 0
            for context in (contexts.vision, contexts.audio, contexts.made_audio):
                if context:
                    node = _Node.from_address(usage(context).root)
                    total += node.bytes
                    free(context)
            totals.append(total)
        found.append(totals)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
