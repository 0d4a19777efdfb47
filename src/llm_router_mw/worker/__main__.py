"""``python -m llm_router_mw.worker``: started by the router, speaks frames on its stdin and stdout.

The order matters: the channel is taken before anything can print, and the reader runs before the
engine is imported, so that the process ends with its router in every phase.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import NoReturn

from llm_router_mw.worker.channel import Channel
from llm_router_mw.worker.inbox import Inbox

_SWITCH_SECONDS = 0.0002


def main() -> int:
    """Run a worker and return its exit code."""
    channel = Channel.seize()
    # Ctrl-C is the router's business. Terminating is the kernel's: Python's own handlers would
    # wait for native code to return.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The engine gives the interpreter lock up in each step and must get it back at once: by
    # default a busy thread beside it may keep it for 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    inbox = Inbox(channel)
    inbox.start()
    # Slow, and done before hello is answered: a spare worker is warm once it is ready.
    from llm_router_mw.engine.bare import import_bindings_only

    import_bindings_only()
    from llm_router_mw.worker.child import Child

    return Child(channel, inbox).run()


def leave(code: int) -> NoReturn:
    """End the process.

    The system takes all its memory back at once; to free it piece by piece takes a tenth of a
    second, for which the next model would have to wait.
    """
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
