"""Finds llama-server, or builds it from the sources that llama-cpp-python is made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

_CMAKE_OPTIONS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)


class PeerError(Exception):
    """Raised when llama-server can neither be found nor built."""


def find_or_build(given: Path | None, cache: Path) -> Path:
    """Return llama-server: *given*, else $LLAMA_SERVER, else on PATH, else built into *cache*.

    Raises:
        PeerError: it is not where it was said to be, or cannot be built.
    """
    named = given or os.environ.get("LLAMA_SERVER")
    if named:
        path = Path(named)
        if not os.access(path, os.X_OK):
            raise PeerError(f"{path} is not a program; name llama-server with --llama-server")
        return path
    found = shutil.which("llama-server")
    return Path(found) if found else _build(cache)


def peer_version(binary: Path) -> str:
    """Return what llama-server says of its own build."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    return next((line for line in lines if line.startswith("version")), "version unknown")


def _build(cache: Path) -> Path:
    """Build the version that llama-cpp-python vendors, so that both sides compute alike."""
    release = version("llama-cpp-python")
    directory = cache / f"llama-server-{release}"
    binary = directory / "build" / "bin" / "llama-server"
    if binary.exists():
        return binary
    directory.mkdir(parents=True, exist_ok=True)
    requirement = f"llama-cpp-python=={release}"
    sources = ("--no-deps", "--no-binary", ":all:", "--dest", str(directory))
    _run([sys.executable, "-m", "pip", "download", *sources, requirement])
    archive = next(directory.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    tree = next(directory.glob("*/vendor/llama.cpp"))
    build = directory / "build"
    _run(["cmake", "-S", str(tree), "-B", str(build), *_CMAKE_OPTIONS])
    _run(["cmake", "--build", str(build), "--target", "llama-server", "--parallel"])
    return binary


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerError(
            f"llama-server could not be built ({error}); install it and name it with --llama-server"
        ) from error
