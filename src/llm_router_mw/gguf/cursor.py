"""Reads the values that a GGUF header is made of, from a file that may lie about its lengths.

The file is read through a window, not mapped: a mapped file that somebody shortens meanwhile would
end the whole process with SIGBUS.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from functools import cache
from itertools import repeat
from typing import BinaryIO, Final, Literal

from llm_router_mw.errors import InvalidGGUFError

WINDOW_BYTES = 1024 * 1024
"""Read at once; no less than a length takes."""
MAX_HEADER_BYTES = 1024 * 1024 * 1024
"""A longer header is a damaged one; the largest have some tens of megabytes."""
MAX_STRINGS = 8_000_000
"""Strings in one header; bounds the time. The largest vocabularies have about a million."""
MAX_KEPT_BYTES = 64 * 1024 * 1024
"""Text and numbers kept from one header; bounds the memory."""

_LENGTH: Final = struct.Struct("<Q")
_BLOCK_STRINGS: Final = 128
"""Strings that are passed at once, if all of them are short."""
_SHORT_BYTES: Final = 96
_TYPICAL_BYTES: Final = 7


class ValueType(IntEnum):
    """Types of metadata values, by GGUF's numbers."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


SCALARS: Final[dict[ValueType, struct.Struct]] = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<?"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}


class Cursor:
    """A position in an open file of ``file_bytes`` bytes, and a window of what lies after it.

    Every method takes *what*: the thing being read, for the error message.

    Raises:
        InvalidGGUFError: the file ends too early, or announces more than a header can hold.
    """

    def __init__(self, file: BinaryIO, name: str, file_bytes: int) -> None:
        """*name* is for the error messages: clients see them, so it is no path."""
        self.file_bytes = file_bytes
        self._end = min(file_bytes, MAX_HEADER_BYTES)
        self._file = file
        self._name = name
        self._window = b""
        self._start = 0
        self._at = 0
        self._strings_left = MAX_STRINGS
        self._kept_left = MAX_KEPT_BYTES
        self.is_cut_short = False
        """Whether less could be read than ``file_bytes`` promises: with more of it, all may be
        well."""

    @property
    def position(self) -> int:
        """Offset of the next byte in the file."""
        return self._start + self._at

    def error(self, problem: str, advice: str = "download it again") -> InvalidGGUFError:
        """Return the error that says *problem*, where it is, and what to do."""
        return InvalidGGUFError(
            f"{self._name} is not a well-formed GGUF file: {problem}, at byte {self.position}; "
            f"{advice}"
        )

    def take(self, size: int, what: str) -> bytes:
        """Return the next *size* bytes and move past them."""
        self._require(size, what)
        if self._at + size > len(self._window):
            self._refill(max(size, WINDOW_BYTES))
        data = self._window[self._at : self._at + size]
        if len(data) < size:
            raise self._cut_short(what)
        self._at += size
        return data

    def skip(self, size: int, what: str) -> None:
        """Move past *size* bytes without reading them."""
        self._require(size, what)
        self._at += size

    def rewind(self, position: int) -> None:
        """Go back to *position*."""
        self._start, self._at, self._window = position, 0, b""

    def number(self, kind: ValueType, what: str) -> int | float | bool:
        """Return the next scalar."""
        code = SCALARS[kind]
        value: int | float | bool = code.unpack(self.take(code.size, what))[0]
        return value

    def unsigned(self, bits: Literal[32, 64], what: str) -> int:
        """Return the next unsigned integer."""
        return int.from_bytes(self.take(bits // 8, what), "little")

    def fields(self, layout: struct.Struct, what: str) -> tuple[int, ...]:
        """Return the next integers, as *layout* says they lie."""
        return layout.unpack(self.take(layout.size, what))

    def numbers(self, kind: ValueType, count: int, what: str) -> tuple[int | float | bool, ...]:
        """Return the next *count* scalars."""
        code = SCALARS[kind]
        self._keep(count * code.size, what)
        data = self.take(count * code.size, what)
        return tuple(item[0] for item in code.iter_unpack(data))

    def string(self, what: str) -> bytes:
        """Return the next string."""
        size = self.unsigned(64, f"the length of {what}")
        self._require(size, what)
        self._keep(size, what)
        return self.take(size, what)

    def skip_strings(self, count: int, what: str) -> None:
        """Move past *count* strings: a quarter of a million of them in a dozen milliseconds."""
        self._require(count * _LENGTH.size, what)
        self._strings_left -= count
        if self._strings_left < 0:
            raise self.error(f"{what} brings the strings to more than {MAX_STRINGS}")
        while count >= _BLOCK_STRINGS:
            block = _short_strings().match(self._window, self._at)
            if block:
                # Within the window, and so within the file.
                self._at = block.end()
            else:
                self._skip_each(_BLOCK_STRINGS, what)
            count -= _BLOCK_STRINGS
        self._skip_each(count, what)

    def _skip_each(self, count: int, what: str) -> None:
        """Move past *count* strings of any length, one by one."""
        read_length = _LENGTH.unpack_from
        window, at, last = self._window, self._at, len(self._window) - _LENGTH.size
        for _ in repeat(None, count):
            if at > last:
                self._move(at, what)
                self._require(_LENGTH.size, what)
                self._refill(WINDOW_BYTES)
                window, at, last = self._window, 0, len(self._window) - _LENGTH.size
                if last < 0:
                    raise self._cut_short(what)
            at += _LENGTH.size + read_length(window, at)[0]
        self._move(at, what)

    def _move(self, at: int, what: str) -> None:
        """Go to *at* in the window or beyond it, unless the file ends before."""
        if self._start + at > self._end:
            raise self._truncated(what)
        self._at = at

    def _require(self, size: int, what: str) -> None:
        if size > self._end - self.position:
            raise self._truncated(what)

    def _keep(self, size: int, what: str) -> None:
        self._kept_left -= size
        if self._kept_left < 0:
            raise self.error(f"{what} brings the metadata to more than {MAX_KEPT_BYTES} bytes")

    def _cut_short(self, what: str) -> InvalidGGUFError:
        self.is_cut_short = True
        return self._truncated(what)

    def _truncated(self, what: str) -> InvalidGGUFError:
        if self._end < self.file_bytes:
            return self.error(f"{what} makes the header longer than {MAX_HEADER_BYTES} bytes")
        return self.error(
            f"the file ends ({self.file_bytes} bytes) before {what} does",
            "the file is incomplete or damaged, download it again",
        )

    def _refill(self, size: int) -> None:
        """Make the window begin at the position; it is shorter than *size* at the file's end."""
        self._start, self._at = self.position, 0
        self._file.seek(self._start)
        self._window = self._file.read(size)


@cache
def _short_strings() -> re.Pattern[bytes]:
    """Return what matches a block of short strings, as they lie in a file.

    The interpreter needs a tenth of a microsecond to look at a length, the matcher of regular
    expressions half as much. Common lengths come first, because it tries one after the other; what
    has matched is never tried in another way.
    """
    sizes = sorted(range(_SHORT_BYTES + 1), key=lambda size: abs(size - _TYPICAL_BYTES))
    strings = (re.escape(_LENGTH.pack(size)) + b".{%d}" % size for size in sizes)
    return re.compile(b"(?s:%b){%d}+" % (b"|".join(strings), _BLOCK_STRINGS))
