"""What all model files have in common."""

from __future__ import annotations

from typing import Final

from gguf import GGUFWriter

LOGIT_DEVIATION: Final = 2.5
"""Standard deviation of the logits: about as decided as a real model."""


def save(writer: GGUFWriter) -> None:
    """Write what *writer* was given to its file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
