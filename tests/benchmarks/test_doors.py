"""What passing the middleware costs is measured beside the bare app."""

from __future__ import annotations

from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.doors import measure_doors


def test_each_door_is_measured() -> None:
    doors = measure_doors(50, rounds=1)
    assert [door.name for door in doors] == [
        "bare app",
        "LLMRouterMiddleware",
        "BaseHTTPMiddleware",
    ]
    assert all(door.seconds > 0 for door in doors)


def test_it_is_printed_with_what_it_adds() -> None:
    result = CliRunner().invoke(main, ["doors", "--requests", "50"])
    assert result.exit_code == 0, result.output
    assert "LLMRouterMiddleware adds" in result.output
