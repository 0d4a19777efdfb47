"""What llama.cpp alone needs to load a model and to make its context: the floor for a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

import click

from benchmarks.settings import Settings


def bare_load_seconds(model: Path, settings: Settings) -> float:
    """Return the seconds that a process of its own takes for *model*, started up already."""
    options = (str(model), str(settings.n_ctx), str(settings.n_parallel))
    command = [sys.executable, "-m", "benchmarks.bare_load", *options]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("n_ctx", type=int)
@click.argument("n_parallel", type=int)
def main(model: Path, n_ctx: int, n_parallel: int) -> None:
    """Print the seconds that loading MODEL takes."""
    # Here, so that who only wants to run this needs no llama.cpp of its own.
    from llama_cpp import llama_cpp as llama

    keep = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(keep, None)
    llama.llama_backend_init()
    parameters = llama.llama_context_default_params()
    parameters.n_ctx, parameters.n_seq_max, parameters.kv_unified = n_ctx, n_parallel, True
    began = perf_counter()
    loaded = llama.llama_model_load_from_file(bytes(model), llama.llama_model_default_params())
    assert llama.llama_init_from_model(loaded, parameters)
    click.echo(f"{perf_counter() - began}")


if __name__ == "__main__":
    main()
