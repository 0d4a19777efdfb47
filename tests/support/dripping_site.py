"""WSGI apps for real servers, with models that never stop talking, and a diary of what happens.

Each line of the file ``$DIARY`` is a process and what happened in it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import django
import flask
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from llm_router_mw import LLMRouterWSGIMiddleware, hookimpl
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import RouterContract
from llm_router_mw.testing import FakeEngine, FakeInstance, FakeStream
from llm_router_mw.types import ContentDelta, Delta, Task

_PAUSE_SECONDS = 0.02


def note(event: str) -> None:
    """Write down that *event* has happened in this process."""
    with open(os.environ["DIARY"], "a") as diary:
        diary.write(f"{os.getpid()} {event}\n")


class DrippingStream(FakeStream):
    """Goes on until it is cancelled."""

    async def __anext__(self) -> Delta:
        if self.over:
            return await super().__anext__()
        await anyio.sleep(_PAUSE_SECONDS)
        return ContentDelta("drip ")

    def cancel(self, error: LLMRouterError | None = None) -> None:
        """Note who was cancelled."""
        if not self.over:
            note("cancelled")
        super().cancel(error)


class DrippingInstance(FakeInstance):
    def submit(self, task: Task, on_finished: Callable[[], None]) -> DrippingStream:
        stream = DrippingStream([], on_finished)
        stream.give()
        return stream


class DrippingEngine(FakeEngine):
    name = "dripping"

    async def create(self) -> DrippingInstance:
        return DrippingInstance(self)


class Dripping:
    """The plugin."""

    @hookimpl
    def llm_router_register_engines(self) -> list[DrippingEngine]:
        return [DrippingEngine()]

    @hookimpl
    @asynccontextmanager
    async def llm_router_lifespan(self, router: RouterContract) -> AsyncIterator[None]:
        note("started")
        yield
        note("stopped")


def door(app: Any) -> LLMRouterWSGIMiddleware:
    models = os.environ["MODELS_DIR"]
    return LLMRouterWSGIMiddleware(app, plugins=[Dripping], engine="dripping", models_dir=models)


def held(environ: dict[str, Any]) -> str:
    """Return the process, and the names of two models that it held together."""
    with environ["llm_router"].acquire("a", "b") as (first, second):
        return f"{os.getpid()} {first.model} {second.model}"


def bare(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A page of the app's own at ``/``, and at ``/held`` one that uses models."""
    text = held(environ) if environ["PATH_INFO"] == "/held" else "the app's own"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


in_flask = flask.Flask("site")
in_flask.add_url_rule("/", "own", lambda: "the app's own")
in_flask.add_url_rule("/held", "held", lambda: held(flask.request.environ))


def own_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the app's own")


def held_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(held(request.environ))


urlpatterns = [path("", own_page), path("held", held_page)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of a test")
django.setup()

bare_site = door(bare)
flask_site = door(in_flask)
django_site = door(get_wsgi_application())
