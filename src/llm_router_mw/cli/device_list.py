"""Reading ``--devices cuda:24GiB,host:64GiB``: machines that one might have."""

from __future__ import annotations

import re
from collections import Counter
from typing import get_args

import click

from llm_router_mw.cli.values import split
from llm_router_mw.types import HOST, Device, DeviceKind

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)(?:iB|B)?", re.IGNORECASE)
_KINDS: dict[str, DeviceKind] = {kind: kind for kind in get_args(DeviceKind)}


def parse_devices(text: str) -> tuple[Device, ...]:
    """Return the devices that *text* names, each a kind and its memory, all of it free.

    Raises:
        click.BadParameter: a part is no kind and size.
    """
    found: list[Device] = []
    numbers: Counter[str] = Counter()
    for part in split([text]):
        name, colon, size = part.partition(":")
        kind = _KINDS.get(name.strip().lower())
        if kind is None or not colon:
            raise click.BadParameter(
                f"{part!r} is not a kind and its memory, as cuda:24GiB; kinds are "
                f"{', '.join(_KINDS)}"
            )
        if kind == HOST and numbers[kind]:
            raise click.BadParameter("there is one host only; name it once")
        n_bytes = size_bytes(size)
        identity = HOST if kind == HOST else f"{kind}:{numbers[kind]}"
        found.append(
            Device(
                id=identity,
                pool=identity,
                kind=kind,
                name=identity,
                total_bytes=n_bytes,
                free_bytes=n_bytes,
                backend_name="" if kind == HOST else f"{kind.upper()}{numbers[kind]}",
            )
        )
        numbers[kind] += 1
    return tuple(found)


def size_bytes(text: str) -> int:
    """Return the bytes of a size as ``24GiB``, ``24G`` or ``512 MiB``; units are of 1024.

    Raises:
        click.BadParameter: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; write it as 24GiB or 512MiB")
    return int(float(match["number"]) * _UNITS[match["unit"].upper()])
