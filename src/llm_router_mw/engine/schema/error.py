"""What goes wrong with a schema."""

from __future__ import annotations


class SchemaError(ValueError):
    """The schema is wrong, or asks for something that a grammar cannot promise."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
