"""Names of models that lie in a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from llm_router_mw.errors import ConfigError

SCHEME: Final = "hf://"
"""How the path of a model begins that lies in the hub's cache, or has yet to come there."""
_PART = r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*"
_REPO = re.compile(rf"{_PART}/{_PART}")
_QUANT = re.compile(r"[A-Za-z0-9_.-]+")
_MAX_LENGTH = 256


class HubReference(Struct, frozen=True):
    """A model of a repository: the file ``file``, or the one of the quantisation ``quant``."""

    repo: str
    """``owner/name``."""
    quant: str = ""
    """Empty leaves the choice to us."""
    file: str = ""
    """Path in the repository; it has the say where it is given."""

    def __str__(self) -> str:
        if self.file:
            return f"{self.repo}/{self.file}"
        return f"{self.repo}:{self.quant}" if self.quant else self.repo

    @property
    def path(self) -> str:
        """What stands for the model's path as long as nobody needs its file."""
        return f"{SCHEME}{self}"


def parse_reference(text: str, file: str | None = None) -> HubReference:
    """Return what ``owner/name`` or ``owner/name:QUANT`` names; *file* is a path in it.

    Raises:
        ConfigError: it is no such name.
    """
    repo, colon, quant = text.partition(":")
    if len(repo) > _MAX_LENGTH or not _REPO.fullmatch(repo):
        raise ConfigError(
            f"hf_repo {text!r} is not a repository; write it as owner/name or owner/name:Q4_K_M"
        )
    if colon and not _QUANT.fullmatch(quant):
        raise ConfigError(f"hf_repo {text!r} names no quantisation; write it as owner/name:Q4_K_M")
    if file is not None and (not file.endswith(".gguf") or not is_inside(file)):
        raise ConfigError(
            f"hf_file {file!r} is not the path of a .gguf file in the repository; name it as the "
            "repository's list of files does"
        )
    return HubReference(repo, "" if file else quant.upper(), file or "")


def reference_of(path: str) -> HubReference | None:
    """Return the reference that stands for a model's path; None if it is an ordinary one.

    Raises:
        ConfigError: it begins as one, but is none.
    """
    if not path.startswith(SCHEME):
        return None
    owner, _, rest = path.removeprefix(SCHEME).partition("/")
    name, slash, file = rest.partition("/")
    return parse_reference(f"{owner}/{name}", file if slash else None)


def is_inside(path: str) -> bool:
    """Tell whether *path* is relative, and cannot lead out of the folder that it begins in."""
    parts = path.split("/")
    plain = all(part.strip() not in ("", ".", "..") for part in parts)
    return plain and not any(each in path for each in ("\\", "\0", ":")) and path.isprintable()
