"""``python -m llm_router_mw.shared``: the host of a shared router; started by a web process.

It forks before anything has been imported or started that would not survive it, and its first
half ends: so the host is nobody's child, and no web process must wait for its end or takes it
along when it ends itself.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Become the host and return its exit code; the process that was started ends at once."""
    if os.fork():
        os._exit(0)
    from llm_router_mw.shared.host_process import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
