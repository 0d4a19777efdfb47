"""One instance: a server while it is awake, and nothing while it sleeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import anyio
import anyio.abc
import anyio.to_thread
import httpx

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import (
    LLMRouterError,
    ModelLoadError,
    ModelUnloadedError,
    WireError,
    WorkerDiedError,
)
from llm_router_mw.protocols import ExitReport, SleepReport
from llm_router_mw.router.process import describe_exit
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.types import ModelInfo, SleepLevel, Task
from llm_router_mw.wire import Load
from llm_router_mw.worker.visible import visibility
from llm_router_mw_llamaserver.arguments import arguments
from llm_router_mw_llamaserver.options import Options
from llm_router_mw_llamaserver.pump import Pump
from llm_router_mw_llamaserver.server import PortTakenError, Server

_TRIES = 3
"""Ports that are tried, should others take them first."""
Phase = Literal["idle", "serving", "asleep", "ending"]


class LlamaServerInstance:
    """An ``EngineInstance``. Its tasks are those of the engine."""

    def __init__(self, tasks: anyio.abc.TaskGroup, config: RouterConfig, options: Options) -> None:
        self._tasks = tasks
        self._config = config
        self._options = options
        self._phase: Phase = "idle"
        self._order: Load | None = None
        self._server: Server | None = None
        self._streams: dict[int, RequestStream] = {}
        self._count = 0
        self._report = ExitReport(exit_code=None)
        self._gone = anyio.Event()

    @property
    def pid(self) -> int | None:
        """Of its server; None while it has none."""
        server = self._server
        return server.pid if server is not None and not server.gone.is_set() else None

    async def load(self, order: Load, progress: Callable[[float], None]) -> ModelInfo:
        """Start a server; it tells of no fractions."""
        self._order = order
        return await self._come_up(progress, warm_up=True)

    async def sleep(self, level: SleepLevel) -> SleepReport:
        """End the server: it knows no half measures, so ``context`` frees as much as ``full``."""
        if self._streams:
            raise WireError("the model cannot sleep while requests are under way")
        if self._phase == "asleep":
            return SleepReport(seconds=0.0, private_bytes=0)
        if self._phase != "serving" or self._server is None:
            raise self._died()
        began = anyio.current_time()
        self._phase = "asleep"
        await self._server.end(self._config.stop_timeout_seconds)
        return SleepReport(seconds=anyio.current_time() - began, private_bytes=0)

    async def wake(self, progress: Callable[[float], None]) -> ModelInfo:
        """Start another server as the first one was."""
        return await self._come_up(progress, warm_up=False)

    def submit(self, task: Task, on_finished: Callable[[], None]) -> RequestStream:
        """Ask the server."""
        server = self._server
        if self._phase != "serving" or server is None or self._order is None:
            stream = RequestStream(0, lambda message: None, on_finished, lambda stream: None)
            is_asleep = self._phase == "asleep"
            stream.fail(
                ModelUnloadedError("the model has fallen asleep; ask again")
                if is_asleep
                else self._died()
            )
            return stream
        self._count += 1
        number = self._count
        stuck_seconds = self._config.worker_stall_seconds
        pump = Pump(server, task, self._order.options, stuck_seconds)

        def finished() -> None:
            del self._streams[number]
            on_finished()

        stream = RequestStream(number, pump.told, finished, self._watch_stall)
        self._streams[number] = stream
        self._tasks.start_soon(pump.run, stream)
        return stream

    async def stop(self, timeout_seconds: float) -> None:
        """Terminate the server, then kill it; requests end with it."""
        self._phase = "ending"
        if self._server is not None and not self._server.gone.is_set():
            await self._server.end(timeout_seconds)
        await self._end(self._report)

    def kill(self) -> None:
        """Kill the server."""
        self._phase = "ending"
        if self._server is not None and not self._server.gone.is_set():
            self._server.kill()  # its end is the instance's
        else:
            self._gone.set()

    async def wait(self) -> ExitReport:
        """Return when the last server is gone."""
        await self._gone.wait()
        return self._report

    async def _come_up(self, progress: Callable[[float], None], *, warm_up: bool) -> ModelInfo:
        order, binary = self._order, self._options.found()
        assert order is not None
        told = await anyio.to_thread.run_sync(
            lambda: arguments(order, self._options.args, warm_up=warm_up)
        )
        environ = {**visibility(order.placement), **order.environ}
        began = anyio.current_time()
        for last in (False,) * (_TRIES - 1) + (True,):
            server = await self._spawn(binary, told, environ)
            try:
                await server.ready(self._config.load_stall_seconds)
                info = await _info(server, order, anyio.current_time() - began)
                break
            except PortTakenError:
                if last or self._phase == "ending":
                    raise
            except httpx.HTTPError as error:
                raise ModelLoadError(f"llama-server does not tell of its model: {error}") from error
        if self._phase == "ending" or server.gone.is_set():
            raise self._died()
        self._phase = "serving"
        progress(1.0)
        return info

    async def _spawn(self, binary: str, told: list[str], environ: dict[str, str]) -> Server:
        if self._phase == "ending":
            raise self._died()
        server = self._server = await Server.spawn(binary, told, environ)
        self._tasks.start_soon(server.run, self._left)
        return server
