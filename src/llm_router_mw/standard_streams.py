"""Standard input and output of a process that speaks frames over them."""

from __future__ import annotations

import os

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def seize_standard_streams() -> tuple[int, int]:
    """Take standard input and output over; return the descriptors to read from and to write to.

    Afterwards descriptor 0 reads nothing and 1 is the log, as 2 is: a native library or a plugin
    that prints does no harm.
    """
    reader, writer = os.dup(_STDIN), os.dup(_STDOUT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    os.close(nothing)
    os.dup2(_STDERR, _STDOUT)
    return reader, writer
