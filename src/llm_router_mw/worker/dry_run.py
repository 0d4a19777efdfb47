"""``python -m llm_router_mw.worker.dry_run``: answers orders on its stdin, a line of JSON each.

llama.cpp aborts on some files. That ends this process and nothing else, quickly and without leaving
a dump behind.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from llm_router_mw.engine.bare import import_bindings_only
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.memory.dry_run_order import DryRunAnswer, DryRunOrder
from llm_router_mw.worker.visible import visibility

_STDOUT, _STDERR = 1, 2


def main() -> int:
    """Answer all orders and return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _be_expendable()
    # llama.cpp and drivers print what they like; the answers must stand alone.
    answers = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    import_bindings_only()
    for line in sys.stdin.buffer:
        answer = msgspec.json.encode(_answer(msgspec.json.decode(line, type=DryRunOrder)))
        os.write(answers, answer + b"\n")
    return 0


def _answer(order: DryRunOrder) -> DryRunAnswer:
    os.environ.update(visibility(order.placement))
    # Only now, so that no backend has looked at its devices before.
    from llm_router_mw.engine.dry_run import dry_run
    from llm_router_mw.engine.remote import register_servers

    try:
        register_servers(os.environ)
        return DryRunAnswer(memory=dry_run(order.path, order.options, order.placement))
    except LLMRouterError as error:
        return DryRunAnswer(failure=error.to_failure())


def _be_expendable() -> None:
    """Leave no dump and start no debugger at an abort; be the first to go when memory is short."""
    # Otherwise ggml starts a debugger to print where it was.
    os.environ["GGML_NO_BACKTRACE"] = "1"
    with suppress(ImportError):  # there is none on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    sys.exit(main())
