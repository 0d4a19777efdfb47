"""Sizes that are neither nothing nor a long number."""

from __future__ import annotations

import pytest

from llm_router_mw.cli.sizes import size_text

MIB = 1024**2


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0"),
        (1, "0.0 KiB"),
        (40_000, "39 KiB"),
        (300_000, "0.3 MiB"),
        (8 * MIB, "8.0 MiB"),
        (10 * MIB, "10 MiB"),
        (102 * MIB, "102 MiB"),
        (103 * MIB, "0.1 GiB"),
        (1024 * MIB, "1.0 GiB"),
        (480_000 * MIB, "468.8 GiB"),
    ],
)
def test_the_unit_fits_the_size(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text
