"""What the middleware leaves as it is: each app answers as it does without us, under uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import httpx
import pytest
import wsproto
from starlette.types import ASGIApp

from llm_router_mw import LLMRouterMiddleware
from tests.support.fake_router import FakeRouter
from tests.support.host_apps import EVENTS, FRAMEWORKS, SUBPROTOCOL, Stage
from tests.support.serving import WAIT_SECONDS, serving


class Site(NamedTuple):
    """One app, with the middleware and without."""

    bare: str
    covered: str
    stage: Stage
    """Of the covered one."""


@pytest.fixture(scope="module", params=FRAMEWORKS, ids=lambda each: each.__name__)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    make: Callable[[Stage], ASGIApp] = request.param
    stage = Stage()
    covered = LLMRouterMiddleware(make(stage), router=FakeRouter())
    with serving(make(Stage()), ws="wsproto") as bare, serving(covered, ws="wsproto") as url:
        yield Site(bare, url, stage)


def without_date(response: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [each for each in response.headers.multi_items() if each[0] != "date"]
    return response.status_code, headers, response.content


@pytest.mark.parametrize("path", ["/state", "/broken", "/nothing", "/models", "/v1x", "/health"])
def test_it_answers_as_without_us(site: Site, path: str) -> None:
    bare, covered = httpx.get(site.bare + path), httpx.get(site.covered + path)
    assert without_date(covered) == without_date(bare)
    if path == "/state":
        assert covered.json() == {"mine": "kept"}


def test_its_events_arrive_before_the_next_one_is_there(site: Site) -> None:
    with httpx.stream("GET", f"{site.covered}/events") as response:
        assert response.headers["content-type"].startswith(EVENTS)
        pieces = response.iter_raw()
        assert next(pieces) == b"data: first\n\n"
        site.stage.gate.open()
        assert b"".join(pieces) == b"data: second\n\n"


def test_its_tasks_run_when_the_answer_is_with_the_client(site: Site) -> None:
    site.stage.gate.close()
    assert httpx.get(f"{site.covered}/later").text == "done"
    assert not site.stage.after.is_set()
    site.stage.gate.open()
    assert site.stage.after.wait(WAIT_SECONDS)


def echoed(url: str) -> list[str]:
    """Return the subprotocol and what comes back of two texts sent over one websocket."""
    address = httpx.URL(url)
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    heard: list[str] = []
    with socket.create_connection((address.host, address.port or 0), WAIT_SECONDS) as line:
        line.sendall(
            client.send(
                wsproto.events.Request(host="x", target="/echo", subprotocols=[SUBPROTOCOL])
            )
        )
        while len(heard) < 3:
            client.receive_data(line.recv(65536) or None)
            for event in client.events():
                if isinstance(event, wsproto.events.AcceptConnection):
                    heard.append(str(event.subprotocol))
                else:
                    assert isinstance(event, wsproto.events.TextMessage), event
                    heard.append(event.data)
                if len(heard) < 3:
                    line.sendall(client.send(wsproto.events.TextMessage(f"text {len(heard)}")))
        line.sendall(client.send(wsproto.events.CloseConnection(code=1000)))
    return heard


def test_its_websockets_speak_as_without_us(site: Site) -> None:
    assert echoed(site.covered) == echoed(site.bare)
    assert echoed(site.covered) == [SUBPROTOCOL, "text 1, kept", "text 2, kept"]
