"""What can be said about the engine."""

from __future__ import annotations

import shutil

from msgspec import Struct

from llm_router_mw.errors import ModelLoadError


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``plugin_options["llama-server"]``."""

    binary: str = "llama-server"
    """A path, or a name that is looked for on ``PATH``."""
    args: tuple[str, ...] = ()
    """More arguments for each server; they come last, so they win."""

    def found(self) -> str:
        """Return the path of the binary.

        Raises:
            ModelLoadError: there is none.
        """
        path = shutil.which(self.binary)
        if path is None:
            raise ModelLoadError(
                f"there is no program {self.binary!r}: install llama.cpp, or say where it is with "
                "the option 'binary' of plugin_options 'llama-server'"
            )
        return path
