"""The hub's cache on disk, as llama.cpp and the hub's own tools lay it out.

``models--owner--name/`` holds ``blobs/<hash>``, ``snapshots/<commit>/<path>`` (links to blobs) and
``refs/<branch>`` (the commit).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from llm_router_mw.errors import ModelFileError
from llm_router_mw.hub.choice import chosen
from llm_router_mw.hub.files import HubFile, Plan
from llm_router_mw.hub_reference import HubReference

_VARIABLES = (
    ("LLAMA_CACHE", ""),
    ("HF_HUB_CACHE", ""),
    ("HUGGINGFACE_HUB_CACHE", ""),
    ("HF_HOME", "hub"),
    ("XDG_CACHE_HOME", "huggingface/hub"),
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INCOMPLETE = ".incomplete"


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where the cache is, by the variables that llama.cpp goes by, in its order."""
    for name, below in _VARIABLES:
        if environ.get(name):
            return Path(environ[name]) / below
    return Path.home() / ".cache" / "huggingface" / "hub"


class HubCache:
    """What is here already, and the places of what comes. All calls use the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, reference: HubReference) -> Path | None:
        """Return the (first) file of a model, if all of its parts are here."""
        for snapshot in self._snapshots(reference.repo):
            here = [path for path in snapshot.rglob("*.gguf") if path.is_file()]
            try:
                parts = chosen((path.relative_to(snapshot).as_posix() for path in here), reference)
            except ModelFileError:
                continue
            return snapshot / parts[0]
        return None

    def blob(self, repo: str, file: HubFile) -> Path:
        """Return where the contents of *file* are kept."""
        return self._folder(repo) / "blobs" / file.oid

    def incomplete(self, repo: str, file: HubFile) -> Path:
        """Return where the contents of *file* grow while they are fetched."""
        return self._folder(repo) / "blobs" / f"{file.oid}{_INCOMPLETE}"

    def lock(self, repo: str, file: HubFile) -> Path:
        """Return the file that is locked by who fetches *file*."""
        return self.root / ".locks" / self._folder(repo).name / f"{file.oid}.lock"

    def missing_bytes(self, plan: Plan) -> int:
        """Return how much of *plan* has yet to be fetched."""
        return sum(self._missing(plan, part) for part in plan.parts)

    def has(self, plan: Plan, file: HubFile) -> bool:
        """Tell whether the contents of *file* are here."""
        places = (self.blob(plan.repo, file), self._named(plan, file))
        return any(_size(place) == file.size_bytes for place in places)

    def place(self, plan: Plan, file: HubFile) -> Path:
        """Give *file*, whose contents are here, its name in the snapshot, and return that."""
        named = self._named(plan, file)
        blob = self.blob(plan.repo, file)
        if _size(named) == file.size_bytes:
            return named
        named.parent.mkdir(parents=True, exist_ok=True)
        named.unlink(missing_ok=True)
        try:
            named.symlink_to(os.path.relpath(blob, named.parent))
        except OSError:  # not every system has links, or lets everybody make them
            os.replace(blob, named)
        return named

    def remember(self, plan: Plan) -> None:
        """Note that the commit of *plan* is the latest that is known of its repository."""
        ref = self._folder(plan.repo) / "refs" / "main"
        ref.parent.mkdir(parents=True, exist_ok=True)
        draft = ref.with_name(f"{ref.name}.{os.getpid()}")
        draft.write_text(plan.commit)
        os.replace(draft, ref)

    def free_bytes(self) -> int:
        """Return what is free on the disk of the cache.

        Raises:
            OSError: the cache cannot be made or looked at.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.root).free

    def _folder(self, repo: str) -> Path:
        return self.root / f"models--{repo.replace('/', '--')}"

    def _named(self, plan: Plan, file: HubFile) -> Path:
        return self._folder(plan.repo) / "snapshots" / plan.commit / file.path

    def _missing(self, plan: Plan, file: HubFile) -> int:
        if self.has(plan, file):
            return 0
        return max(0, file.size_bytes - (_size(self.incomplete(plan.repo, file)) or 0))

    def _snapshots(self, repo: str) -> Iterator[Path]:
        """Return the snapshots of *repo* that may be complete, the one that is in use first."""
        folder = self._folder(repo)
        try:
            found = {path.name: path for path in (folder / "snapshots").iterdir() if path.is_dir()}
        except OSError:
            return
        newest_first = sorted(found, key=lambda name: -(found[name].stat().st_mtime_ns))
        for commit in dict.fromkeys([*_refs(folder / "refs"), *newest_first]):
            if commit in found:
                yield found[commit]


def _refs(folder: Path) -> Iterator[str]:
    """Return the commits that branches are known to be at, that of ``main`` first."""
    try:
        files = sorted(folder.iterdir(), key=lambda path: (path.name != "main", path.name))
    except OSError:
        return
    for file in files:
        try:
            commit = file.read_text(errors="replace").strip()
        except OSError:
            continue
        if _COMMIT.fullmatch(commit):
            yield commit


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
