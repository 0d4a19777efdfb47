"""Reads the header of a file of which only the beginning is here: the rest lies elsewhere."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from llm_router_mw.errors import InvalidGGUFError
from llm_router_mw.gguf.cursor import Cursor
from llm_router_mw.gguf.header import GGUFHeader
from llm_router_mw.gguf.reader import parse_header

MAX_PREFIX_BYTES: Final = 256 * 1024 * 1024
"""More of a file is not fetched for its header; the largest have some tens of megabytes."""
_FIRST_BYTES: Final = 1024 * 1024


class HeaderPrefix:
    """The beginning of a file of ``file_bytes`` bytes; it grows until the header is in it.

    The owner fetches the bytes up to ``wanted_bytes``, feeds them, and asks for the header: each
    time for twice as much as before, so a header costs few requests and less than twice its size.
    """

    def __init__(self, name: str, file_bytes: int) -> None:
        """*name* is for error messages: clients see them, so it is no path."""
        self.file_bytes = file_bytes
        self._name = name
        self._data = bytearray()
        self._wanted = _FIRST_BYTES

    def __len__(self) -> int:
        return len(self._data)

    @property
    def data(self) -> bytes:
        """All bytes so far."""
        return bytes(self._data)

    @property
    def wanted_bytes(self) -> int:
        """How long the prefix should be next."""
        return min(self._wanted, self.file_bytes, MAX_PREFIX_BYTES)

    def feed(self, data: bytes) -> None:
        """Add the bytes that follow."""
        self._data += data

    def header(self) -> GGUFHeader | None:
        """Return the header; None if more bytes are needed for it.

        Raises:
            InvalidGGUFError: the file is not well-formed, or the header is too long.
        """
        cursor = Cursor(BytesIO(self._data), self._name, self.file_bytes)
        try:
            return parse_header(cursor)
        except InvalidGGUFError:
            if not cursor.is_cut_short or len(self._data) >= self.file_bytes:
                raise
        if len(self._data) >= MAX_PREFIX_BYTES:
            raise cursor.error(f"its header is longer than {MAX_PREFIX_BYTES} bytes")
        self._wanted = max(self._wanted, len(self._data)) * 2
        return None
