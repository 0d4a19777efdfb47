"""Chat formats that tell, in their worker's log, what they find there."""

from __future__ import annotations

import ctypes
import os
import sys

from llm_router_mw.engine.chat_template import TemplateChatFormat


class NoisyFormat(TemplateChatFormat):
    """Prints in every way that Python and native code have, and reads standard input."""

    def __init__(self, template: str, bos: str, eos: str) -> None:
        super().__init__(template, bos, eos)
        print("printed by Python", flush=True)
        os.write(1, b"written to descriptor 1\n")
        libc = ctypes.CDLL(None)
        libc.puts(b"printed by C")
        libc.fflush(None)
        print(f"standard input holds {sys.stdin.read()!r}", flush=True)


class CuriousFormat(TemplateChatFormat):
    """Tells which modules and which environment it sees."""

    def __init__(self, template: str, bos: str, eos: str) -> None:
        super().__init__(template, bos, eos)
        found = {name.partition(".")[0] for name in sys.modules}
        print("web:", sorted(found & {"starlette", "pluggy", "uvicorn", "anyio"}), flush=True)
        print("engine:", sorted(found & {"llama_cpp"}), flush=True)
        print("mark:", os.environ.get("TINY_MARK"), flush=True)
        print("visible:", repr(os.environ.get("CUDA_VISIBLE_DEVICES")), flush=True)
