"""The bindings of llama.cpp without what their package brings along."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec
from typing import Final

_PACKAGE: Final = "llama_cpp"


def import_bindings_only() -> None:
    """Keep the package of the bindings from being run when its modules are imported.

    It would import numpy, Jinja and a cache for an interface that is not used here: most of the
    time that a short-lived process takes. For processes that are ours alone, before the first
    import of anything native.
    """
    spec = None if _PACKAGE in sys.modules else find_spec(_PACKAGE)
    if spec is not None:
        sys.modules[_PACKAGE] = module_from_spec(spec)
