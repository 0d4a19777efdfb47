"""The devices that ggml sees in this process, and who owns which kind of buffer.

To ask this is to start the backends: on a GPU that takes memory for a context of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, get_args

from llama_cpp._ggml import libggml

from llm_router_mw.types import HOST, Device, DeviceKind

_POINTER: Final = ctypes.c_void_p


class _Type(IntEnum):
    """``enum ggml_backend_dev_type``."""

    CPU = 0
    GPU = 1
    IGPU = 2


class _Properties(ctypes.Structure):
    """``struct ggml_backend_dev_props``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 5),
        # Whatever later versions add is written here, rather than over something else.
        ("reserve", ctypes.c_uint8 * 256),
    ]


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of ggml, which the bindings leave out."""
    function = getattr(libggml, name)
    function.restype, function.argtypes = result, arguments
    return function


_count = _function("ggml_backend_dev_count", ctypes.c_size_t)
_get = _function("ggml_backend_dev_get", _POINTER, ctypes.c_size_t)
_properties = _function("ggml_backend_dev_get_props", None, _POINTER, ctypes.POINTER(_Properties))
_registry = _function("ggml_backend_dev_backend_reg", _POINTER, _POINTER)
_registry_name = _function("ggml_backend_reg_name", ctypes.c_char_p, _POINTER)
_buffer_type = _function("ggml_backend_dev_buffer_type", _POINTER, _POINTER)
_buffer_name = _function("ggml_backend_buft_name", ctypes.c_char_p, _POINTER)
_buffer_is_host = _function("ggml_backend_buft_is_host", ctypes.c_bool, _POINTER)
_buffer_device = _function("ggml_backend_buft_get_device", _POINTER, _POINTER)


def devices() -> tuple[Device, ...]:
    """Return the GPUs, in ggml's order; integrated ones draw from the host's pool.

    A device's id is its address where it has one, on the network or on the bus; otherwise its name,
    which is not lasting.
    """
    return tuple(_device(pointer, found) for pointer, found in _gpus())


def device_pointers() -> dict[str, int]:
    """Return the GPUs by the ids that :func:`devices` gives them.

    Of several backends that see the same card, the first counts: as it does for llama.cpp.
    """
    pointers: dict[str, int] = {}
    for pointer, found in _gpus():
        pointers.setdefault(_device(pointer, found).id, pointer)
    return pointers


def buffer_types(used: Sequence[str] | None = None) -> dict[str, int]:
    """Return the buffer type of each device, by name (``CPU``, ``CUDA0``).

    Of the GPUs those in *used* only, unless that names none that is known here: then the
    environment shows no others.
    """
    gpus = {pointer: device for device, pointer in device_pointers().items()}
    if used is not None and (not used or set(used) & set(gpus.values())):
        others = {pointer for pointer, device in gpus.items() if device not in used}
    else:
        others = set()
    pointers = [_get(index) for index in range(_count())]
    types = [_buffer_type(pointer) for pointer in pointers if pointer not in others]
    return {_text(_buffer_name(each)): each for each in types if each}


def buffer_owner(buffer_type: int) -> tuple[str, str]:
    """Return the name of *buffer_type*, and the id of the device whose memory it takes.

    What a GPU's driver pins for it is the host's, and so is what the processor rearranges.
    """
    name, owner = _text(_buffer_name(buffer_type)), _buffer_device(buffer_type)
    if _buffer_is_host(buffer_type):
        return name, HOST
    return name, next((_device(gpu, found).id for gpu, found in _gpus() if gpu == owner), HOST)


def _gpus() -> Iterator[tuple[int, _Properties]]:
    for index in range(_count()):
        pointer = _get(index)
        found = _Properties()
        _properties(pointer, ctypes.byref(found))
        if found.type in (_Type.GPU, _Type.IGPU):
            found.registry = _text(_registry_name(_registry(pointer)))
            yield pointer, found


def _device(pointer: int, found: _Properties) -> Device:
    name, address = _text(found.name), _text(found.device_id).lower()
    kind = _KINDS.get(found.registry.lower(), "other")
    # One card may be shown as several devices, told apart behind its address.
    identity = address or name
    if kind == "rpc":
        # Here it is the buffer that is named after the server.
        identity = _text(_buffer_name(_buffer_type(pointer)))
    return Device(
        id=identity,
        pool=HOST if found.type == _Type.IGPU else identity,
        kind=kind,
        name=_text(found.description),
        total_bytes=found.memory_total,
        free_bytes=found.memory_free,
        pci_id=address.partition("-")[0],
        backend_name=name,
    )


_KINDS: Final[dict[str, DeviceKind]] = {kind: kind for kind in get_args(DeviceKind)} | {
    "mtl": "metal"
}


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
