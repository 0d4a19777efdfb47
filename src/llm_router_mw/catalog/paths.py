"""The one path under which a model's file is known."""

from __future__ import annotations

import os

from llm_router_mw.gguf import shard_stem


def canonical(path: str) -> str:
    """Return the absolute path of *path*, with symbolic links resolved.

    Two names for one file must come to one path, because models with equal paths and options share
    an instance. Links are kept in two cases: a part of a model finds its siblings by its name,
    which the target of a link (in a download cache, for one) need not have; and a broken link is
    better reported under the name that the user knows.
    """
    absolute = os.path.abspath(path)
    if not os.path.exists(absolute):
        return absolute
    directory, name = os.path.split(absolute)
    if shard_stem(name) is not None:
        return os.path.join(os.path.realpath(directory), name)
    return os.path.realpath(absolute)


def is_utf8(text: str) -> bool:
    """Tell whether *text* can be sent: file names may hold bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
