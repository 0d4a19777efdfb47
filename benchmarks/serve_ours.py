"""Serves one model with options that the command line has no flag for; ``servers`` starts it."""

from __future__ import annotations

import click
import uvicorn

from llm_router_mw import LLMRouterApp


@click.command()
@click.option("--model", required=True)
@click.option("--port", type=int, required=True)
@click.option("--ctx-size", type=int, required=True)
@click.option("--parallel", type=int, required=True)
@click.option("--threads", type=int, required=True)
@click.option("--pooling", required=True)
def serve(model: str, port: int, ctx_size: int, parallel: int, threads: int, pooling: str) -> None:
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
    )
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    serve()
