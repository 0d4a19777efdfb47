"""The engine ``llama-server``: one server of llama.cpp for each instance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ModelLoadError
from llm_router_mw_llamaserver.instance import LlamaServerInstance
from llm_router_mw_llamaserver.options import Options


class LlamaServerEngine:
    """Runs servers (an ``EngineFactory``)."""

    name = "llama-server"

    def __init__(self, config: RouterConfig, options: Options) -> None:
        self._config = config
        self._options = options
        self._tasks: anyio.abc.TaskGroup | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the servers: when this is left, none of them is alive."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def create(self) -> LlamaServerInstance:
        """Return an instance; its server starts with the load.

        Raises:
            ModelLoadError: there is no binary, or the router is closing.
        """
        self._options.found()
        if self._tasks is None:
            raise ModelLoadError("the router is closing; no server can be started")
        return LlamaServerInstance(self._tasks, self._config, self._options)
