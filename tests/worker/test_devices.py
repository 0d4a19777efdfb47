"""The child that asks llama.cpp for its devices says nothing else on its output."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from llm_router_mw.types import Device

COMMAND = [sys.executable, "-P", "-m", "llm_router_mw.worker.devices"]


def test_it_prints_the_devices_as_json() -> None:
    result = subprocess.run(COMMAND, capture_output=True, check=True)
    found = msgspec.json.decode(result.stdout, type=list[Device])
    assert all(device.id and device.kind != "host" for device in found)


def test_what_a_driver_prints_is_no_part_of_the_answer() -> None:
    code = (
        "import os, sys, types, llm_router_mw.worker.devices as child\n"
        "fake = types.ModuleType('backends')\n"
        "fake.devices = lambda: os.write(1, b'a driver says hello') and ()\n"
        "sys.modules['llm_router_mw.engine.backends'] = fake\n"
        "sys.exit(child.main())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout == b"[]"
    assert b"hello" in result.stderr
