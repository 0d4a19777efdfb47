"""Serves one model with options that the command line has no flag for; ``servers`` starts it."""

from __future__ import annotations

import click
import uvicorn

from llm_router_mw import LLMRouterApp


def shared_name(port: int) -> str:
    """Return by which name the shared host of the server at *port* goes."""
    return f"benchmark-{port}"


@click.command()
@click.option("--model", required=True)
@click.option("--port", type=int, required=True)
@click.option("--ctx-size", type=int, required=True)
@click.option("--parallel", type=int, required=True)
@click.option("--threads", type=int, required=True)
@click.option("--pooling", default="")
@click.option("--mode", default="local")
def serve(
    *, model: str, port: int, ctx_size: int, parallel: int, threads: int, pooling: str, mode: str
) -> None:
    """Serve the file *model* on a local port, under the id "benchmark"."""
    app = LLMRouterApp(
        models={"benchmark": model},
        # Among them is the one that tells whether the server is there.
        routes=("inference", "management"),
        authorize=lambda scope: False,
        n_ctx=ctx_size,
        n_parallel=parallel,
        n_threads=threads,
        pooling=pooling,
        mode=mode,
        # A host of this server's own, which does not outlive it for long.
        shared_name=shared_name(port),
        shared_grace_seconds=1.0,
    )
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    serve()
