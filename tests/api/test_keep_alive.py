from __future__ import annotations

import pytest

from llm_router_mw.api.keep_alive import FOREVER, keep_alive_seconds
from llm_router_mw.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        (0, 0.0),
        (300, 300.0),
        (1.5, 1.5),
        (-1, FOREVER),
        (-0.5, FOREVER),
        ("0", 0.0),
        ("90", 90.0),
        (".5", 0.5),
        ("-1", FOREVER),
        ("-1m", FOREVER),
        ("0s", 0.0),
        ("+5m", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("1h0m0.5s", 3600.5),
        ("250ms", 0.25),
        ("3us", 3e-6),
        ("3µs", 3e-6),
        ("500000000ns", 0.5),
        (" 24h ", 86_400.0),
    ],
)
def test_all_of_ollamas_forms_are_understood(
    given: float | str | None, seconds: float | None
) -> None:
    assert keep_alive_seconds(given) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "given", ["", "soon", "5 m", "5d", "m", "--5", "1h30", "1e3", "inf", "nan", "٣", "1" * 101]
)
def test_another_text_is_refused_with_examples(given: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"like '5m' or '1h30m'") as caught:
        keep_alive_seconds(given)
    assert caught.value.param == "keep_alive"
    assert len(caught.value.message) < 300
