"""``llm-router-mw demo``: the example app with two small models, and what to try with it."""

from __future__ import annotations

import click

from llm_router_mw.cli import log, server
from llm_router_mw.cli.demo_app import create_app, demo_models
from llm_router_mw.router import Router

_STREAM_SECONDS = 5
_WORKER_STOP_SECONDS = 2.5

_CURL = """\
curl {url}/v1/models
curl {url}/v1/chat/completions -H 'Content-Type: application/json' \
-d '{{"model": "guide", "temperature": 0, \
"messages": [{{"role": "user", "content": "{question}"}}]}}'
curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' \
-d '{{"model": "companion", "temperature": 0, "stream": true, \
"messages": [{{"role": "user", "content": "What is a lease?"}}]}}'
"""

_PYTHON = """\
from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="none")
reply = client.chat.completions.create(
    model="guide", temperature=0, messages=[{{"role": "user", "content": "{question}"}}]
)
print(reply.choices[0].message.content)
"""

_QUESTION = "How do I mount the router?"


def guidance(url: str) -> str:
    """Return what the demo prints: three curl lines and a Python snippet that work as they are."""
    curl = _CURL.format(url=url, question=_QUESTION)
    python = _PYTHON.format(url=url, question=_QUESTION)
    return (
        f"\nThe demo is ready: {url}\n"
        "Two models, one loaded at a time: asking the second evicts the first.\n"
        f"\nIn another terminal:\n\n{curl}"
        f"\nIn Python (pip install openai):\n\n{python}"
        "\nCtrl-C stops.\n"
    )


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one."
)
@click.option("-v", "--verbose", is_flag=True, help="Log each request, and details.")
def demo(*, host: str, port: int, verbose: bool) -> None:
    """Serve an example app with two small models of the package."""
    log.configure(verbose=verbose)
    bound = server.bind(host, port)
    router = Router(models=demo_models(), models_max=1, stop_timeout_seconds=_WORKER_STOP_SECONDS)
    server.run(
        create_app(router),
        router,
        bound,
        on_ready=lambda: click.echo(guidance(server.base_url(bound))),
        stream_seconds=_STREAM_SECONDS,
    )
