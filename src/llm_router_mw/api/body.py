"""From bytes to a typed request; whatever is wrong becomes a 400 that names the field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import anyio.to_thread
import msgspec

from llm_router_mw.errors import InvalidRequestError

RequestT = TypeVar("RequestT")
T = TypeVar("T")

MAX_ITEMS = 4096
"""Entries of any list in a request that has no smaller limit of its own."""
_LARGE_BYTES = 256 * 1024
"""Others would notice a larger body being read in the event loop."""

_PATH = re.compile(r" - at `\$\.?(?P<param>.*)`$")
MAX_INT = 2**31 - 1
"""The largest count that a field may ask for: llama.cpp's integers have 32 bits."""
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any_value: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

# Fields that change the answer and that we cannot follow yet, each with the values that ask for
# nothing (null always does). Ignoring one would be a wrong answer that looks like a right one.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "audio": (),
    "best_of": (1,),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "web_search_options": (),
}


def decode(data: bytes, decoder: msgspec.json.Decoder[RequestT]) -> RequestT:
    """Return the request in the JSON text *data*.

    Raises:
        InvalidRequestError: it is not UTF-8, not JSON, not an object, or a field is wrong.
    """
    try:
        data.decode()  # msgspec looks only into the strings that it keeps
        return decoder.decode(data)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"the body is not valid UTF-8 (byte {error.start}); send JSON encoded as UTF-8"
        ) from error
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError("the body is not usable JSON: it is nested too deeply") from error


async def understand(data: bytes, read: Callable[[bytes], T]) -> T:
    """Return what *read* makes of the body *data*, in a thread if that is large.

    Raises:
        InvalidRequestError: as *read* does.
    """
    if len(data) <= _LARGE_BYTES:
        return read(data)
    return await anyio.to_thread.run_sync(read, data)


def refuse_unsupported(data: bytes) -> None:
    """Check that the JSON object *data* asks for nothing that would have to be ignored.

    Raises:
        InvalidRequestError: it does; ``param`` names the field.
    """
    fields = decode(data, _raw_fields)
    for name in fields.keys() & _UNSUPPORTED.keys():
        value = decode(bytes(fields[name]), _any_value)
        if value is not None and value not in _UNSUPPORTED[name]:
            raise InvalidRequestError(
                f"{name} is not supported yet; leave the field out", param=name
            )


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """Check that *value*, if there is one, lies between *low* and *high*.

    Raises:
        InvalidRequestError: it does not.
    """
    if value is not None and not low <= value <= high:
        raise InvalidRequestError(
            f"{name} is {value}; it must be between {low} and {high}", param=name
        )


def _wrong_field(text: str) -> InvalidRequestError:
    found = _PATH.search(text)
    if found is None or not found["param"]:
        return InvalidRequestError(f"the body must be a JSON object: {text}")
    param = found["param"]
    problem = text[: found.start()]
    return InvalidRequestError(f"{param}: {problem[0].lower()}{problem[1:]}", param=param)
