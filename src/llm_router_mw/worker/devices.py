"""``python -m llm_router_mw.worker.devices``: print the GPUs that llama.cpp sees, as JSON."""

from __future__ import annotations

import os
import sys

import msgspec

from llm_router_mw.engine.bare import import_bindings_only
from llm_router_mw.errors import ModelLoadError

_STDOUT, _STDERR = 1, 2


def main() -> int:
    """Print them and return the exit code."""
    # Drivers print what they like; the answer must stand alone.
    answer = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    import_bindings_only()
    from llm_router_mw.engine.backends import devices
    from llm_router_mw.engine.remote import register_servers

    try:
        register_servers(os.environ)
    except ModelLoadError as error:  # the devices of this machine are there all the same
        print(error, file=sys.stderr)
    with open(answer, "wb") as file:
        file.write(msgspec.json.encode(devices()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
