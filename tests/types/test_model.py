"""Models, and the instances that they share."""

from __future__ import annotations

import msgspec
import pytest

from llm_router_mw.types import InstanceKey, LoadOptions, Model

CHAT = Model(id="chat", path="/models/a.gguf", source="config")


def test_models_of_one_file_and_equal_options_share_an_instance() -> None:
    other = msgspec.structs.replace(CHAT, id="other", aliases=("x",), tags=("y",), source="z")
    assert other.instance_key == CHAT.instance_key
    assert hash(other.instance_key) == hash(CHAT.instance_key)


@pytest.mark.parametrize("options", [LoadOptions(pooling="mean"), LoadOptions(n_ctx=512)])
def test_other_options_are_another_instance(options: LoadOptions) -> None:
    assert msgspec.structs.replace(CHAT, options=options).instance_key != CHAT.instance_key


def test_an_instance_is_shown_by_its_file() -> None:
    assert str(InstanceKey("/models/a.gguf", LoadOptions())) == "a.gguf"


def test_unknown_load_options_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `ctx`"):
        msgspec.convert({"ctx": 1}, LoadOptions)
