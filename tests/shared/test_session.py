"""One web process at the host: it asks, holds and streams, and leaves nothing behind."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_router_mw.errors import InvalidRequestError, ModelLoadError
from llm_router_mw.shared import outflow as outflow_file
from llm_router_mw.shared.messages import (
    Abandon,
    Answered,
    Ask,
    GetCached,
    GetTasks,
    GiveUp,
    Granted,
    Happened,
    Inspect,
    Load,
    Ping,
    Pong,
    PurgeCache,
    PutToSleep,
    Queued,
    Refused,
    Release,
    Start,
    ToHost,
    ToWeb,
    Unload,
    Verb,
    Views,
)
from llm_router_mw.testing import FakeEngine
from llm_router_mw.testing.engine import FakeInstance
from llm_router_mw.types import (
    CompletionTask,
    ContentDelta,
    Delta,
    FailureDelta,
    FinishDelta,
    InstanceState,
    ModelView,
    Purged,
    Usage,
    Wish,
)
from llm_router_mw.wire import INITIAL_CREDIT, Cancel, Credit, encode
from tests.support.direct_engine import DirectEngine, DirectInstance
from tests.support.real_router import state, view
from tests.support.waiting import until
from tests.support.web_process import GREET, HELLO, Address, WebProcess, hosting

pytestmark = pytest.mark.asyncio

CANCELLED = FinishDelta("cancelled", Usage())
FINISH = FinishDelta("stop", Usage(prompt_tokens=1, completion_tokens=2))
ECHO = [ContentDelta("echo: "), ContentDelta("hello"), FINISH]


def leases(address: Address, model: str = "a") -> int:
    return view(address.router, model).leases


def kind_of(deltas: list[Delta]) -> str:
    """Return the kind of the failure with which an answer ends."""
    assert isinstance(deltas[-1], FailureDelta)
    return deltas[-1].failure.kind


def holding() -> FakeEngine:
    """Return an engine whose answers wait until they are let go."""
    engine = FakeEngine()
    engine.hold = True
    return engine


def loading_slowly(*models: str) -> FakeEngine:
    engine = FakeEngine()
    engine.slow |= set(models)
    return engine


# Leases


async def test_an_ask_is_granted_with_facts_about_its_instances(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        ask = await web.ask("a", "b")
        granted = await web.hear(Granted)
        assert granted.id == ask
        assert [model for model, _ in granted.leases] == ["a", "b"]
        assert {info.n_ctx for _, info in granted.leases} == {128}
        assert (leases(address, "a"), leases(address, "b")) == (1, 1)


async def test_an_ask_that_cannot_be_served_is_refused_with_the_reason(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.broken["a"] = ModelLoadError("out of order", out_of_memory=False)
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        for model, kind in (("nobody", "ModelNotFoundError"), ("a", "ModelLoadError")):
            ask = await web.ask(model)
            refused = await web.hear(Refused)
            assert (refused.id, refused.failure.kind) == (ask, kind)


async def test_a_wish_is_heeded(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        await web.say(Ask(1, ("a",), Wish(autoload=False)))
        assert (await web.hear(Refused)).failure.kind == "ModelNotLoadedError"


async def test_who_wants_to_know_is_told_its_place_in_the_queue(tmp_path: Path) -> None:
    engine = loading_slowly("a")
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        ask = await web.ask("a", tell_place=True)
        queued = await web.hear(Queued)
        assert (queued.id, queued.place.position) == (ask, 1)
        await until(lambda: engine.loads)
        engine.latest("a").ready.set()
        assert (await web.hear(Granted)).id == ask


async def test_nobody_else_is(tmp_path: Path) -> None:
    engine = loading_slowly("a")
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        await web.ask("a")
        await until(lambda: engine.loads)
        engine.latest("a").ready.set()
        while not isinstance(message := await web.next(), Granted):
            assert not isinstance(message, Queued)


async def test_a_lease_is_released_by_itself(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        ask = await web.granted("a", "b")
        await web.say(Release(ask, 1))
        await until(lambda: not leases(address, "b"))
        assert leases(address, "a") == 1
        await web.say(Release(ask, 0), Release(ask, 0), Release(4711, 0))  # more often than needed
        await until(lambda: not leases(address, "a"))


async def test_what_was_granted_and_is_abandoned_is_released(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        await web.say(Abandon(await web.granted("a", "b")))
        await until(lambda: not leases(address, "a") and not leases(address, "b"))


async def test_an_abandoned_ask_waits_no_longer(tmp_path: Path) -> None:
    async with hosting(tmp_path, loading_slowly("a")) as address, address.welcomed() as web:
        ask = await web.ask("a")
        await until(lambda: view(address.router, "a").waiting)
        await web.say(Abandon(ask), Ping())
        await until(lambda: not view(address.router, "a").waiting)
        while not isinstance(message := await web.next(), Pong):
            assert not isinstance(message, Granted | Refused)


@pytest.mark.parametrize("turns", range(12))
async def test_an_ask_can_be_abandoned_at_any_moment(tmp_path: Path, turns: int) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        await address.router.load("a")
        ask = await web.ask("a")
        for _ in range(turns):
            await anyio.lowlevel.checkpoint()
        await web.say(Abandon(ask), Ping())
        await web.hear(Pong)
        await until(lambda: not leases(address))


# Answers


async def test_a_task_is_answered_under_its_lease(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        ask = await web.granted("a", "b")
        assert await web.answer(await web.start(ask, index=1)) == ECHO
        assert await web.answer(await web.start(ask, index=1)) == ECHO
        assert leases(address, "b") == 1


async def test_a_lease_may_end_with_its_task(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        ask = await web.granted("a")
        await web.answer(await web.start(ask, release=True))
        assert not leases(address)
        assert kind_of(await web.answer(await web.start(ask))) == "LeaseExpiredError"


async def test_a_worker_that_is_done_is_not_told_to_stop(tmp_path: Path) -> None:
    engine = DirectEngine()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        stream = await web.start(await web.granted("a"), release=True)
        worker = engine.direct("a")
        await until(lambda: worker.answers)
        worker.answers[0].feed(FINISH)
        assert await web.answer(stream) == [FINISH]
        assert not leases(address)
        assert worker.sent == []


async def test_an_engine_that_goes_on_after_its_end_is_not_heard(tmp_path: Path) -> None:
    engine = holding()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        stream = await web.start(await web.granted("a"))
        await until(lambda: engine.latest("a").streams)
        engine.latest("a").streams[0].deltas = [FINISH, ContentDelta("and"), FINISH]
        engine.latest("a").streams[0].give()
        assert await web.answer(stream) == [FINISH]
        await web.say(Ping())
        assert await web.next() == Pong()


async def test_a_lease_ends_also_with_a_task_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InvalidRequestError("no such thing")

    monkeypatch.setattr(FakeInstance, "submit", refuse)
    async with hosting(tmp_path) as address, address.welcomed() as web:
        ask = await web.granted("a", "b")
        assert (
            kind_of(await web.answer(await web.start(ask, release=True))) == "InvalidRequestError"
        )
        await until(lambda: not leases(address, "a"))
        assert kind_of(await web.answer(await web.start(ask, index=1))) == "InvalidRequestError"
        assert leases(address, "b") == 1


async def test_a_lease_that_was_taken_is_of_no_use(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        ask = await web.granted("a")
        await address.router.unload("a", force=True)
        assert kind_of(await web.answer(await web.start(ask))) == "ModelUnloadedError"


async def test_a_task_without_a_lease_fails(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        assert kind_of(await web.answer(await web.start(4711))) == "LeaseExpiredError"


async def test_an_answer_can_be_cancelled(tmp_path: Path) -> None:
    engine = holding()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        stream = await web.start(await web.granted("a"))
        await web.say(Cancel(stream))
        assert await web.answer(stream) == [CANCELLED]
        assert engine.latest("a").streams[0].cancelled
        await web.say(Cancel(stream), Credit(stream, 1), Ping())  # too late, and harmless
        assert await web.hear(Pong) == Pong()


async def test_a_lease_that_is_released_cancels_its_answers(tmp_path: Path) -> None:
    async with hosting(tmp_path, holding()) as address, address.welcomed() as web:
        ask = await web.granted("a")
        stream = await web.start(ask)
        await web.say(Release(ask, 0))
        assert await web.answer(stream) == [CANCELLED]


async def test_a_worker_that_dies_fails_the_answer(tmp_path: Path) -> None:
    engine = holding()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        stream = await web.start(await web.granted("a"))
        await until(lambda: engine.latest("a").streams)
        engine.latest("a").die()
        assert kind_of(await web.answer(stream)) == "WorkerDiedError"


async def test_a_step_of_a_worker_is_one_frame(tmp_path: Path) -> None:
    engine = DirectEngine()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        ask = await web.granted("a")
        streams = [await web.start(ask) for _ in range(50)]
        worker = engine.direct("a")
        await until(lambda: len(worker.answers) == 50)
        worker.step(*map(str, streams))
        step = await web.step()
        assert step == [(stream, ContentDelta(str(stream))) for stream in streams]


async def test_an_answer_that_is_over_when_it_starts_is_told(tmp_path: Path) -> None:
    engine = DirectEngine()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        ask = await web.granted("a")
        engine.direct("a").failure = ModelLoadError("gone")
        assert kind_of(await web.answer(await web.start(ask, release=True))) == "ModelLoadError"
        await until(lambda: not leases(address))


async def test_credit_of_the_web_process_goes_on_to_the_worker(tmp_path: Path) -> None:
    engine = DirectEngine()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        ask = await web.granted("a")
        slow, quick = await web.start(ask), await web.start(ask)
        worker = engine.direct("a")
        await until(lambda: len(worker.answers) == 2)
        for _ in range(INITIAL_CREDIT):
            worker.step("x", "y")
        assert worker.full == worker.answers
        await web.say(Credit(quick, INITIAL_CREDIT))
        await until(lambda: worker.sent)
        assert worker.sent == [Credit(1, INITIAL_CREDIT)]  # the slow one waits, and it alone
        await web.say(Cancel(slow))
        await until(lambda: len(worker.sent) == 2)
        assert worker.sent[1] == Cancel(0)


async def test_who_does_not_read_holds_nobody_else_up(tmp_path: Path) -> None:
    engine = DirectEngine()
    async with (
        hosting(tmp_path, engine) as address,
        address.welcomed() as deaf,
        address.welcomed() as web,
    ):
        await deaf.start(await deaf.granted("a"))
        worker = engine.direct("a")
        await until(lambda: worker.answers)
        for _ in range(INITIAL_CREDIT):  # far more than the socket takes
            worker.answers[0].feed(ContentDelta("x" * 10_000))
        stream = await web.start(await web.granted("a"))
        await until(lambda: len(worker.answers) == 2)
        worker.answers[1].feed(FINISH)
        assert await web.answer(stream) == [FINISH]
        assert worker.full == worker.answers[:1]


async def test_who_does_not_read_answers_is_not_heard_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outflow_file, "_FULL_BYTES", 1000)
    async with hosting(tmp_path) as address, address.welcomed() as web:
        said = 0
        with anyio.move_on_after(0.5) as held_up:
            while said < 100_000:  # far more than sockets take
                await web.say(*[Ping()] * 100)
                said += 100
        assert held_up.cancelled_caught
        for _ in range(said):  # and nothing is lost
            await web.hear(Pong)


# Verbs


async def ask_for(web: WebProcess, verb: Verb) -> list[ToWeb]:
    """Return all that is said until *verb* is answered, the answer included."""
    await web.say(verb)
    said: list[ToWeb] = []
    while not (said and isinstance(said[-1], Answered | Refused)):
        said.append(await web.next())
    return said


async def result(web: WebProcess, verb: Verb) -> object:
    answer = (await ask_for(web, verb))[-1]
    assert isinstance(answer, Answered)
    assert answer.id == verb.id
    return msgspec.msgpack.decode(answer.result)


def last_seen(said: list[ToWeb], model: str) -> ModelView:
    """Return how *model* stands for who has heard *said*."""
    views = [
        each
        for message in said
        if isinstance(message, Views | Happened)
        for each in (message.models if isinstance(message, Views) else message.event.models)
    ]
    return next(each for each in reversed(views) if each.id == model)


async def test_who_has_waited_for_a_load_sees_the_model_loaded(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        said = await ask_for(web, Load(1, "a", True))
        assert isinstance(said[-1], Answered)
        assert last_seen(said, "a").state is InstanceState.LOADED
        said = await ask_for(web, PutToSleep(2, "a", "full", True))
        assert last_seen(said, "a").state is InstanceState.SLEEPING
        said = await ask_for(web, Unload(3, "a", False, True))
        assert last_seen(said, "a").state is InstanceState.UNLOADED


async def test_what_came_of_a_verb_is_told_before_its_answer(tmp_path: Path) -> None:
    async with hosting(tmp_path, holding()) as address, address.welcomed() as web:
        await web.start(await web.granted("a"))
        said = await ask_for(web, Unload(10, "a", False, False))
        events = [message.event for message in said if isinstance(message, Happened)]
        assert events[-1].state is InstanceState.DRAINING
        assert last_seen(said, "a").state is InstanceState.DRAINING


async def test_a_load_that_is_not_waited_for_is_answered_at_once(tmp_path: Path) -> None:
    async with hosting(tmp_path, loading_slowly("a")) as address, address.welcomed() as web:
        assert await result(web, Load(1, "a", False)) is None
        assert state(address.router, "a") is InstanceState.LOADING


async def test_verbs_are_answered_as_the_router_answers_them(tmp_path: Path) -> None:
    engine = holding()
    async with hosting(tmp_path, engine) as address, address.welcomed() as web:
        await web.start(await web.granted("a"))
        [task] = msgspec.convert(await result(web, GetTasks(10, "a")), list[CompletionTask])
        assert task == HELLO
        assert await result(web, PutToSleep(11, "a", "full", False)) is False
        assert await result(web, Unload(12, "a", False, False)) is False
        assert await result(web, Unload(13, "b", False, True)) is True
        assert await result(web, GetCached(14)) == []
        assert msgspec.convert(await result(web, PurgeCache(15, None)), Purged) == Purged(
            snapshots=0, size_bytes=0
        )


async def test_a_verb_that_fails_is_refused(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        refused = (await ask_for(web, Load(1, "nobody", True)))[-1]
        assert isinstance(refused, Refused)
        assert (refused.id, refused.failure.kind) == (1, "ModelNotFoundError")


async def test_a_load_that_is_abandoned_is_given_up(tmp_path: Path) -> None:
    async with hosting(tmp_path, loading_slowly("a")) as address, address.welcomed() as web:
        await web.say(Load(1, "a", True))
        await until(lambda: state(address.router, "a") is InstanceState.LOADING)
        await web.say(Abandon(1))
        await until(lambda: state(address.router, "a") is InstanceState.UNLOADED)


# The end


async def test_a_web_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    engine = holding()
    async with hosting(tmp_path, engine) as address:
        async with address.welcomed() as web:
            await web.start(await web.granted("a", "b"))
            await until(lambda: engine.latest("a").streams)
        await until(lambda: not leases(address, "a") and not leases(address, "b"))
        assert engine.latest("a").streams[0].cancelled


async def test_what_it_asked_for_is_not_loaded_for_nobody(tmp_path: Path) -> None:
    async with hosting(tmp_path, loading_slowly("a")) as address:
        async with address.welcomed() as web:
            await web.ask("a")
            await until(lambda: state(address.router, "a") is InstanceState.LOADING)
        await until(lambda: state(address.router, "a") is InstanceState.UNLOADED)


async def test_one_that_is_gone_while_it_did_not_read_holds_nothing(tmp_path: Path) -> None:
    engine = DirectEngine()
    async with hosting(tmp_path, engine) as address:
        async with address.welcomed() as web:
            await web.start(await web.granted("a"))
            worker = engine.direct("a")
            await until(lambda: worker.answers)
            for _ in range(100):
                worker.step("x" * 10_000)
        await until(lambda: not leases(address))
        assert worker.sent == [Cancel(0)]


async def test_one_that_will_never_read_again_is_let_go(tmp_path: Path) -> None:
    async with hosting(tmp_path) as address, address.welcomed() as web:
        await web.granted("a")
        web.stream.extra(anyio.abc.SocketAttribute.raw_socket).shutdown(socket.SHUT_RD)
        await web.say(Ping())
        await until(lambda: not leases(address))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([GREET], "Greet is of no use once one is connected"),
        ([Inspect()], "Inspect is of no use once one is connected"),
        ([GiveUp("1", "x")], "GiveUp is of no use once one is connected"),
        ([Ask(1, ("a",), Wish()), Ask(1, ("b",), Wish())], "number 1 is given out already"),
        ([Load(1, "a", True), GetCached(1)], "number 1 is given out already"),
        ([Start(1, 0, 0, HELLO), Start(1, 0, 0, HELLO)], "number 1 is given out already"),
        ([Ask(1, (), Wish())], "ask 1 is for no model"),
    ],
)
async def test_who_breaks_the_protocol_is_cut_off_alone(
    tmp_path: Path, messages: list[ToHost], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(tmp_path, holding()) as address, address.welcomed() as other:
        async with address.welcomed() as web:
            # The first lease has the number 0.
            await web.say(Ask(0, ("a",), Wish()))
            await web.hear(Granted)
            await web.say(*messages)
            await web.hung_up()
        assert f"web process 4711 broke the protocol ({reason})" in caplog.text
        await other.say(Ping())
        assert await other.hear(Pong) == Pong()
        await until(lambda: not leases(address))


VALID = [Ask(1, ("a",), Wish()), Start(2, 1, 0, HELLO), Release(1, 0), Load(3, "a", True), GREET]


@st.composite
def nonsense(draw: st.DrawFn) -> bytes:
    """Bytes that may have been frames once."""
    data = bytearray(b"".join(map(encode, draw(st.lists(st.sampled_from(VALID), max_size=4)))))
    for _ in range(draw(st.integers(0, 4)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data) + draw(st.binary(max_size=50))


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=nonsense(), greets=st.booleans())
async def test_nonsense_hurts_nobody_else(tmp_path: Path, data: bytes, greets: bool) -> None:
    async with hosting(tmp_path) as address:
        async with address.welcomed() as other:
            async with address.connected() as web:
                with suppress(anyio.BrokenResourceError):
                    await web.stream.send((encode(GREET) if greets else b"") + data)
            assert await other.answer(await other.start(await other.granted("b"))) == ECHO
        await address.deserted()
        assert not any(view.leases or view.waiting for view in address.router.models())


# What a web process may do next; the number picks one of what it has begun.
DEEDS = ["ask", "load", "unload", "start", "last", "cancel", "abandon", "release", "credit", "wait"]
deeds = st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(0, 5)), max_size=15)


async def live(web: WebProcess, life: list[tuple[str, int]]) -> None:
    """Do as *life* says, without a look at what the host says to that."""
    for number, (deed, pick) in enumerate(life, start=1000):
        model, other = "abc"[pick % 3], 1000 + pick
        match deed:
            case "ask":
                await web.say(Ask(number, (model, "a"), Wish(), tell_place=True))
            case "load":
                await web.say(Load(number, model, True))
            case "unload":
                await web.say(Unload(number, model, True, False))
            case "start" | "last":
                await web.say(Start(number, other, 0, HELLO, deed == "last"))
            case "cancel":
                await web.say(Cancel(other))
            case "abandon":
                await web.say(Abandon(other))
            case "release":
                await web.say(Release(other, pick % 2))
            case "credit":
                await web.say(Credit(other, pick))
            case _:
                for _ in range(pick * 3):
                    await anyio.lowlevel.checkpoint()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives=st.lists(deeds, min_size=1, max_size=3))
async def test_whatever_they_do_and_whenever_they_leave_nothing_stays_behind(
    tmp_path: Path, lives: list[list[tuple[str, int]]]
) -> None:
    engine = DirectEngine()

    async def come_and_go(address: Address, life: list[tuple[str, int]]) -> None:
        async with address.welcomed() as web:
            await live(web, life)

    async with hosting(tmp_path, engine) as address:
        async with anyio.create_task_group() as tasks:
            for life in lives:
                tasks.start_soon(come_and_go, address, life)
        await address.deserted()
        assert not any(view.leases or view.waiting for view in address.router.models())
        for instance in engine.instances:
            assert isinstance(instance, DirectInstance)
            cancelled = {each.id for each in instance.sent if isinstance(each, Cancel)}
            assert len(cancelled) == len(instance.answers)
