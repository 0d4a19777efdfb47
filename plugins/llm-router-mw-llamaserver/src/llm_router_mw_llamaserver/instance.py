"""One instance: a server while it is awake, and nothing while it sleeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import anyio
import anyio.abc
import anyio.lowlevel
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
        server = await self._started(binary, told, environ)
        try:
            meta = (await server.ask("/v1/models"))["data"][0]["meta"]
            info = _info(meta, order, anyio.current_time() - began)
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            server.kill()
            raise ModelLoadError(f"llama-server does not tell of its model: {error!r}") from error
        if self._phase == "ending" or server.gone.is_set():
            raise self._died()
        self._phase = "serving"
        progress(1.0)
        return info

    async def _started(self, binary: str, told: list[str], environ: dict[str, str]) -> Server:
        """Return a server that has loaded the model."""
        tries = 1
        while True:
            server = await self._spawn(binary, told, environ)
            try:
                await server.ready(self._config.load_stall_seconds)
                return server
            except PortTakenError:
                if tries == _TRIES:
                    raise
                tries += 1
            except BaseException:
                server.kill()
                raise

    async def _spawn(self, binary: str, told: list[str], environ: dict[str, str]) -> Server:
        if self._phase == "ending":
            raise self._died()
        server = self._server = await Server.spawn(binary, told, environ)
        self._tasks.start_soon(server.run, self._left)
        return server

    async def _left(self, server: Server) -> None:
        """Take note that *server* is gone."""
        if server is self._server and self._phase in ("serving", "ending"):
            await self._end(server.report)

    async def _end(self, report: ExitReport | None) -> None:
        if self._gone.is_set():
            return
        self._phase = "ending"
        self._report = report or self._report
        self._gone.set()
        with anyio.CancelScope(shield=True):
            # Who waits for the end learns of it first: a client whose request fails may ask again
            # at once, and must not be given this instance once more.
            await anyio.lowlevel.checkpoint()
        for stream in list(self._streams.values()):
            stream.fail(self._died())

    def _died(self) -> LLMRouterError:
        how = describe_exit(self._report) if self._gone.is_set() else "is being ended"
        return WorkerDiedError(f"the llama-server of this model {how}; ask again to reload it")

    def _watch_stall(self, stream: RequestStream) -> None:
        self._tasks.start_soon(stream.watch_stall, self._config.client_stall_seconds)


def _info(meta: dict[str, Any], order: Load, load_seconds: float) -> ModelInfo:
    return ModelInfo(
        n_ctx=meta["n_ctx"],
        n_ctx_train=meta["n_ctx_train"],
        n_vocab=meta["n_vocab"],
        n_embd=meta["n_embd"],
        n_params=meta["n_params"],
        size_bytes=meta["size"],
        n_parallel=order.options.n_parallel,
        load_seconds=load_seconds,
        description=meta.get("ftype", ""),
    )
