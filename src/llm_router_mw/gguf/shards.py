"""Models in several files: ``name-00001-of-00003.gguf`` and its siblings."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf.header import GGUFHeader
from llm_router_mw.gguf.reader import read_header

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.ASCII)
_MAX_PARTS = 10_000


def shard_stem(file_name: str) -> str | None:
    """Return the name that all parts of a model share; None if *file_name* is not a part."""
    match = _SHARD.fullmatch(file_name)
    return match["stem"] if match else None


def first_shard(path: str | os.PathLike[str]) -> Path:
    """Return the first part of the model that *path* belongs to; often *path* itself."""
    given = Path(path)
    match = _SHARD.fullmatch(given.name)
    return given if match is None else _part(given, match, 1)


def part_names(file_name: str) -> list[str]:
    """Return the names of all parts of the model that *file_name* is a part of, in order."""
    match = _SHARD.fullmatch(file_name)
    if match is None:
        return [file_name]
    stem, count = match["stem"], match["count"]
    # A name may claim any number of parts.
    numbers = range(1, min(int(count), _MAX_PARTS) + 1)
    return [f"{stem}-{number:05d}-of-{count}.gguf" for number in numbers]


def shards(path: str | os.PathLike[str]) -> list[Path]:
    """Return all parts of the model whose first part is *path*; one part for an ordinary file.

    Raises:
        ModelFileError: *path* is not the first part, or a part is missing.
    """
    given = Path(path)
    match = _SHARD.fullmatch(given.name)
    if match is None:
        return [given]
    if int(match["number"]) != 1:
        raise ModelFileError(
            f"{given.name} is not the first part of its model; name "
            f"{_part(given, match, 1).name} instead"
        )
    count = int(match["count"])
    parts: list[Path] = []
    for number in range(1, count + 1):
        part = _part(given, match, number)
        # The first gap ends it: a name may claim any number of parts.
        if not os.path.exists(part):
            raise ModelFileError(
                f"{given.name} is one of {count} parts, and {part.name} is missing; "
                "put all parts into one directory"
            )
        parts.append(part)
    if not parts:
        raise ModelFileError(f"{given.name} is named as one of no parts; give it its original name")
    return parts


def read_headers(path: str | os.PathLike[str]) -> tuple[GGUFHeader, ...]:
    """Return the headers of all parts of the model at *path*; the first holds the metadata.

    Raises:
        ModelFileError: a part is missing or unreadable, or *path* does not name all parts.
        InvalidGGUFError: a part is not a well-formed GGUF file.
    """
    parts = shards(path)
    headers = tuple(read_header(part) for part in parts)
    announced = headers[0].integer("split.count") or 1
    if announced != len(parts):
        raise ModelFileError(
            f"{parts[0].name} says that its model has {announced} parts, but its name says "
            f"{len(parts)}; give the parts their original names (…-00001-of-0000N.gguf)"
        )
    return headers


def _part(path: Path, match: re.Match[str], number: int) -> Path:
    return path.with_name(f"{match['stem']}-{number:05d}-of-{match['count']}.gguf")
