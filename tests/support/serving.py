"""A real uvicorn in a thread of the test, around any app."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import uvicorn

WAIT_SECONDS = 10.0


class Gate:
    """Opened in the test's thread, waited for on the server's loop."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.open = self._open.set
        self.close = self._open.clear

    async def __call__(self) -> None:
        opened = await anyio.to_thread.run_sync(self._open.wait, WAIT_SECONDS)
        assert opened


class _Server(uvicorn.Server):
    """Says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve *app* on a free port; yields the base URL."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, **options)
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert server.up.wait(WAIT_SECONDS)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
