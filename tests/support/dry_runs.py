"""Asks llama.cpp what models would take, many questions to one child."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType

import msgspec

from llm_router_mw.memory.dry_run_order import DryRunAnswer, DryRunOrder

COMMAND = (sys.executable, "-m", "llm_router_mw.worker.dry_run")


class DryRuns:
    """A child that answers until the end of the ``with`` block; one that died is replaced."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, order: DryRunOrder) -> DryRunAnswer | None:
        """Return the answer; None if the child died of it."""
        if self._child is None:
            self._child = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ,
            )
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(msgspec.json.encode(order) + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            self.close()
            return None
        return msgspec.json.decode(line, type=DryRunAnswer)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.communicate()
            self._child = None

    def __enter__(self) -> DryRuns:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
