"""Real hosts of a shared router in a test's own loop, over models without a process."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

from llm_router_mw import __version__
from llm_router_mw.protocols import RouterContract
from llm_router_mw.router import Router
from llm_router_mw.shared.host import Host
from llm_router_mw.shared.meeting import Meeting
from llm_router_mw.shared.messages import PROTOCOL, Greet, Welcome, web_decoder
from llm_router_mw.shared.plan import Plan
from llm_router_mw.shared.remote import RemoteRouter
from llm_router_mw.testing import FakePlugin
from llm_router_mw.types import InstanceState
from llm_router_mw.wire import encode

_FINGERPRINT = "the same"


class LoopedHosts:
    """Starts a host when one is met and there is none; a test may end it as a kill -9 would."""

    def __init__(self, tasks: anyio.abc.TaskGroup, folder: Path, options: dict[str, Any]) -> None:
        self._tasks = tasks
        self._folder = folder
        self._options = options
        self._life: anyio.CancelScope | None = None
        self.plugin = FakePlugin(folder)
        """Brings the models of the next host; tells what was loaded there."""
        self.routers: list[Router] = []
        """Of all hosts."""
        self.failure: Exception | None = None
        """Why no host can be met."""

    @property
    def router(self) -> Router:
        """The present host's."""
        return self.routers[-1]

    async def meet(self, plan: Plan | None = None) -> Meeting:
        """As the real one."""
        if self.failure is not None:
            raise self.failure
        await self.start()
        return await self.connect()

    async def start(self) -> None:
        """See to it that there is a host, in the loop to which these belong."""
        if self._life is None:
            await self._tasks.start(self._live)

    async def connect(self) -> Meeting:
        """Greet the host, from any loop."""
        async with AsyncExitStack() as stack:
            stream = await stack.enter_async_context(await anyio.connect_unix(self._address))
            await stream.send(encode(Greet(PROTOCOL, __version__, _FINGERPRINT, 1)))
            decoder = web_decoder()
            while True:
                for welcome in decoder.feed(await stream.receive()):
                    assert isinstance(welcome, Welcome)
                    stack.pop_all()
                    return Meeting(stream, decoder, welcome, None)

    def kill(self) -> None:
        """End the present host without a word to its web processes."""
        assert self._life is not None
        self._life.cancel()
        self._life = None

    @property
    def _address(self) -> Path:
        return self._folder / f"{len(self.routers)}.sock"

    async def _live(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        router = Router(plugins=[self.plugin], engine="fake", **self._options)
        with anyio.CancelScope() as self._life:
            async with router:
                self.routers.append(router)
                listener = await anyio.create_unix_listener(self._address)
                host = Host(
                    router,
                    listener,
                    fingerprint=_FINGERPRINT,
                    version=__version__,
                    grace_seconds=60.0,
                    on_give_up=lambda: None,
                )
                task_status.started()
                await host.run()


@asynccontextmanager
async def looped_hosts(**options: Any) -> AsyncIterator[LoopedHosts]:
    """Hosts whose routers have *options*; all have ended afterwards."""
    # Not a test's own directory: a socket's address may have no more than 100 bytes or so.
    with tempfile.TemporaryDirectory() as folder:
        async with anyio.create_task_group() as tasks:
            yield LoopedHosts(tasks, Path(folder), options)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def sharing(**options: Any) -> AsyncIterator[tuple[RemoteRouter, LoopedHosts]]:
    """A router that is shared, and its hosts, whose own routers have *options*."""
    async with looped_hosts(**options) as hosts, RemoteRouter(meet=hosts.meet) as router:
        yield router, hosts


def state_of(router: RouterContract, name: str) -> InstanceState:
    """Return the state of the model *name*."""
    (view,) = (view for view in router.models() if view.id == name)
    return view.state
