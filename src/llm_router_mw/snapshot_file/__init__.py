"""Files that hold what a model has computed for a text, so that it need not be computed again.

Layout: a prologue (magic, version, length and xxh3 checksum of the header), the header as msgpack,
then the parts, each at a multiple of :data:`ALIGNMENT`, so that llama.cpp writes and reads them
straight in a mapping of the file. A file is written under another name and renamed when it is
whole. Whatever is not exactly so is an error: llama.cpp trusts what it is given.
"""

from llm_router_mw.snapshot_file.header import (
    ALIGNMENT,
    PartKind,
    SnapshotHeader,
    SnapshotPart,
    snapshot_bytes,
    snapshot_of,
)
from llm_router_mw.snapshot_file.mapping import PART_SUFFIX, part_path, provide_memory
from llm_router_mw.snapshot_file.reader import OpenSnapshot, open_snapshot, read_header
from llm_router_mw.snapshot_file.writer import SnapshotWriter, write_snapshot

__all__ = [
    "ALIGNMENT",
    "PART_SUFFIX",
    "OpenSnapshot",
    "PartKind",
    "SnapshotHeader",
    "SnapshotPart",
    "SnapshotWriter",
    "open_snapshot",
    "part_path",
    "provide_memory",
    "read_header",
    "snapshot_bytes",
    "snapshot_of",
    "write_snapshot",
]
