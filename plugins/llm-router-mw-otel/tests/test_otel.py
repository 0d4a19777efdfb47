"""What a router does can be read as spans, and none of them holds what was said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llm_router_mw import LLMRouterApp, Router
from llm_router_mw.errors import ModelLoadError, PermissionDeniedError, WorkerDiedError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import GuardedRequest, RequestGuard, RequestOutcome
from llm_router_mw.testing import FakeEngine, FakePlugin
from llm_router_mw.types import Wish

pytestmark = pytest.mark.asyncio

MakeRouter = Callable[..., Router]
SECRET = "the secret of the prompt"
HELLO = [{"role": "user", "content": SECRET}]


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    """The spans that were ended; there is one provider in a process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


async def until(holds: Callable[[], bool]) -> None:
    """Return when *holds* says so."""
    for _ in range(1000):
        if holds():
            return
        await anyio.sleep(0.005)
    raise AssertionError("it did not come to be")


class Spans:
    """What was exported since the test began."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.everything() if span.name == f"llm_router.{name}"]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.all(name)
        return span

    def everything(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    async def reach(self, name: str, count: int = 1) -> ReadableSpan:
        """Return the last of *count* spans once there are so many."""
        await until(lambda: len(self.all(name)) >= count)
        return self.all(name)[-1]


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[Spans]:
    exporter.clear()
    yield Spans(exporter)
    exporter.clear()


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def is_below(span: ReadableSpan, parent: ReadableSpan) -> bool:
    above, own = span.parent, parent.get_span_context()
    return above is not None and own is not None and above.span_id == own.span_id


def links(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


async def ask(router: Router, model: str = "a", owner: str = "") -> None:
    lease = await router.lease(model, Wish(owner=owner))
    try:
        await lease.chat(HELLO)
    finally:
        lease.release()


async def test_a_request_is_a_tree_from_queue_to_load_to_tokens(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    async with make_llm_router() as router:
        await ask(router, owner="0f3a")
        request = await spans.reach("request")
    queue, load, serve = spans.one("queue"), spans.one("load"), spans.one("serve")
    assert request.parent is None
    assert is_below(queue, request)
    assert is_below(load, queue)
    assert is_below(serve, request)
    assert said(request) == {
        "gen_ai.request.model": "a",
        "llm_router.models": ("a",),
        "llm_router.priority": 0,
        "llm_router.owner": "0f3a",
        "llm_router.status": "served",
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    assert said(load)["llm_router.model"] == "a"
    assert said(load)["llm_router.reason"]
    assert said(load)["llm_router.degraded"] is False


async def test_times_follow_each_other(make_llm_router: MakeRouter, spans: Spans) -> None:
    async with make_llm_router() as router:
        await ask(router)
        request = await spans.reach("request")
    queue, serve = spans.one("queue"), spans.one("serve")
    assert request.start_time == queue.start_time
    assert queue.end_time == serve.start_time
    assert serve.end_time == request.end_time
    times = [queue.start_time or 0, queue.end_time or 0, serve.end_time or 0]
    assert times == sorted(set(times))


async def test_a_request_belongs_to_the_span_it_comes_from(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    app_span = trace.get_tracer("app").start_as_current_span
    router = make_llm_router()
    app = LLMRouterApp(router=router)
    transport = httpx.ASGITransport(app)
    async with router, httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        with app_span("of the app") as parent:
            body = {"model": "a", "messages": HELLO}
            assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        request = await spans.reach("request")
    assert request.parent == parent.get_span_context()
    assert request.context.trace_id == spans.one("load").context.trace_id


async def test_a_request_of_another_thread_keeps_its_span(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    router = make_llm_router()
    parents: list[trace.SpanContext] = []

    async def elsewhere() -> None:
        with trace.get_tracer("app").start_as_current_span("of the app") as parent:
            parents.append(parent.get_span_context())
            async with router.acquire("a"):
                pass

    async with router:
        await anyio.to_thread.run_sync(anyio.run, elsewhere)
        request = await spans.reach("request")
    assert [request.parent] == parents


async def test_what_was_said_is_not_recorded(make_llm_router: MakeRouter, spans: Spans) -> None:
    async with make_llm_router() as router:
        await ask(router)
        await spans.reach("request")
    assert spans.everything()
    assert all(SECRET not in span.to_json() for span in spans.everything())


async def test_others_link_to_the_load_that_they_wait_for(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine, spans: Spans
) -> None:
    llm_router_engine.slow.add("a")
    async with make_llm_router() as router, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, router)
        await until(lambda: "a" in llm_router_engine.loads)
        tasks.start_soon(ask, router)
        await until(lambda: router.overview().waiting == 2)
        llm_router_engine.latest("a").ready.set()
        await spans.reach("request", 2)
    load = spans.one("load")
    below = [is_below(load, queue) for queue in spans.all("queue")]
    linked = [links(queue) == [load.context.span_id] for queue in spans.all("queue")]
    assert sorted(below) == [False, True]
    assert linked == [not each for each in below]


async def test_an_eviction_belongs_to_the_request_that_needs_the_room(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    async with make_llm_router(models_max=1, evict_to="stop") as router:
        await ask(router, "a")
        await ask(router, "b")
        await spans.reach("request", 2)
    evict, queue = spans.one("evict"), spans.all("queue")[1]
    assert is_below(evict, queue)
    assert said(evict)["llm_router.model"] == "a"
    assert said(evict)["llm_router.for"] == ("b",)
    assert said(queue)["llm_router.reason"]
    assert is_below(spans.all("load")[1], queue)


async def test_sleep_is_a_trace_of_its_own_and_waking_is_the_request_s(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    async with make_llm_router() as router:
        with trace.get_tracer("app").start_as_current_span("of the app"):
            await router.load("a")
            await router.sleep("a")
        await ask(router)
        await spans.reach("request")
    assert spans.one("load").parent is None
    assert spans.one("sleep").parent is None
    assert is_below(spans.one("wake"), spans.one("queue"))


async def test_a_failed_load_is_an_error_of_load_and_request(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine, spans: Spans
) -> None:
    llm_router_engine.broken["a"] = ModelLoadError("broken file")
    async with make_llm_router() as router:
        with pytest.raises(ModelLoadError):
            await ask(router)
        request = await spans.reach("request")
    for span in (request, spans.one("load")):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert "broken file" in str(span.status.description)
    assert said(request)["error.type"] == "ModelLoadError"
    assert said(request)["llm_router.status"] == "failed"
    assert spans.all("serve") == []


async def test_a_client_that_leaves_is_no_error(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine, spans: Spans
) -> None:
    llm_router_engine.slow.add("a")
    async with make_llm_router() as router, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, router)
        await until(lambda: "a" in llm_router_engine.loads)
        tasks.cancel_scope.cancel()
    request = await spans.reach("request")
    assert said(request)["error.type"] == "RequestLeftError"
    assert request.status.status_code is trace.StatusCode.UNSET


async def test_a_worker_that_dies_while_it_loads_is_an_error_of_the_load(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine, spans: Spans
) -> None:
    llm_router_engine.slow.add("a")
    async with make_llm_router() as router, anyio.create_task_group() as tasks:

        async def ask_in_vain() -> None:
            with pytest.raises(WorkerDiedError):
                await ask(router)

        tasks.start_soon(ask_in_vain)
        await until(lambda: "a" in llm_router_engine.loads)
        llm_router_engine.latest("a").die()
    assert spans.one("load").status.status_code is trace.StatusCode.ERROR


async def test_a_crash_is_told_with_its_reason(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine, spans: Spans
) -> None:
    async with make_llm_router() as router:
        await router.load("a")
        llm_router_engine.latest("a").die()
        died = await spans.reach("worker_died")
    assert died.status.status_code is trace.StatusCode.ERROR
    assert "SIGSEGV" in said(died)["llm_router.reason"]


class BadHandler:
    """A sleep handler that fails, and a guard that refuses everybody."""

    name = "bad"

    async def sleep(self, handle: object, level: str) -> None:
        raise RuntimeError("no diary")

    async def resume(self, handle: object) -> None:
        """Do nothing."""

    async def before(self, request: GuardedRequest) -> None:
        raise PermissionDeniedError("not today")

    async def after(self, request: GuardedRequest, outcome: RequestOutcome) -> None:
        raise AssertionError("it let nobody pass")


class BadSleep:
    """Supplies the handler."""

    @hookimpl
    def llm_router_register_sleep_handlers(self) -> list[BadHandler]:
        return [BadHandler()]


class BadGuard:
    """Supplies the guard."""

    @hookimpl
    def llm_router_register_request_guards(self) -> list[RequestGuard]:
        return [BadHandler()]


async def test_a_sleep_handler_that_fails_is_told(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    async with make_llm_router(BadSleep()) as router:
        await router.load("a")
        await router.sleep("a")
        failed = await spans.reach("handler_failed")
    assert "bad" in said(failed)["llm_router.reason"]


async def test_what_another_guard_refuses_is_told(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    async with make_llm_router(BadGuard()) as router:
        with pytest.raises(PermissionDeniedError):
            await ask(router)
        request = await spans.reach("request")
    assert said(request)["error.type"] == "PermissionDeniedError"
    assert is_below(spans.one("queue"), request)


async def test_all_spans_are_ended_when_the_router_closes(
    make_llm_router: MakeRouter, spans: Spans
) -> None:
    async with make_llm_router() as router:
        async with router.acquire("a", "b"):
            pass
        await spans.reach("request")
    assert {span.status.status_code for span in spans.everything()} == {trace.StatusCode.UNSET}
    assert len(spans.all("load")) == 2
    assert len(spans.all("stop")) == 2


@pytest.mark.parametrize("name", ["a", "twin"])
async def test_models_that_share_an_instance_share_its_spans(
    tmp_path: Path, spans: Spans, name: str
) -> None:
    fake = FakePlugin(tmp_path, ("a",), {"twin": "a"})
    options: dict[str, Any] = {
        "engine": "fake",
        "models_memory_margin": 0,
        "observations_dir": str(tmp_path),
    }
    async with Router(plugins=[fake], **options) as router:
        await ask(router, name)
        await spans.reach("request")
    load, queue = spans.one("load"), spans.one("queue")
    assert is_below(load, queue) or links(queue) == [load.context.span_id]
    assert len(spans.all("stop")) == 1
