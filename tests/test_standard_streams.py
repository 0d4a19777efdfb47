"""Standard input and output, taken over."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import os, sys
from llm_router_mw.standard_streams import seize_standard_streams

reader, writer = seize_standard_streams()
print("printed", flush=True)
os.write(writer, b"answer to " + os.read(reader, 100))
os.write(writer, repr(sys.stdin.read()).encode())
"""


def test_what_is_printed_is_logged_and_only_frames_go_to_who_listens() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], input=b"question", capture_output=True, timeout=30
    )
    assert ran.stdout == b"answer to question''"
    assert ran.stderr == b"printed\n"
