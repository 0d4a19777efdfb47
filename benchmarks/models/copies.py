"""Several models of the same cost."""

from __future__ import annotations

import shutil
from pathlib import Path


def copies(model: Path, count: int) -> Path:
    """Return a directory with *count* copies of the file *model*; make them if need be.

    They are files of their own, so that each takes its own room in the page cache, as other models
    would.
    """
    directory = model.with_suffix(f".{count}")
    directory.mkdir(exist_ok=True)
    for number in range(count):
        copy = directory / f"{model.stem}-{chr(ord('a') + number)}.gguf"
        if not copy.exists():
            unfinished = copy.with_suffix(".unfinished")
            shutil.copyfile(model, unfinished)
            unfinished.rename(copy)
    return directory
