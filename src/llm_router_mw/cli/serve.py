"""``llm-router-mw serve``: a server for a directory of models, under llama-server's flags."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from llm_router_mw.asgi import LLMRouterApp, added_routes
from llm_router_mw.cli import log, server
from llm_router_mw.cli.access import is_loopback, local_programs, nobody
from llm_router_mw.cli.cache_flags import cache_flags
from llm_router_mw.cli.download import download_all
from llm_router_mw.cli.hub_flags import hub_flags, hub_models
from llm_router_mw.cli.load_flags import load_flags
from llm_router_mw.cli.memory_flags import memory_flags
from llm_router_mw.cli.scheduling_flags import scheduling_flags
from llm_router_mw.cli.shared_flags import shared_flags
from llm_router_mw.cli.values import adapters, plugin_options, split
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.router import Router
from llm_router_mw.shared.remote import RemoteRouter

logger = logging.getLogger("llm_router_mw.cli")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one."
)
@click.option(
    "--models-dir",
    type=click.Path(readable=False, path_type=Path),
    help="Serve each GGUF file in it.",
)
@click.option(
    "-m",
    "--model",
    "model_files",
    type=click.Path(readable=False, path_type=Path),
    multiple=True,
    help="Serve this GGUF file; repeatable. Its id is its name without .gguf.",
)
@click.option(
    "-hf",
    "-hfr",
    "--hf-repo",
    "hf_repos",
    metavar="OWNER/NAME[:QUANT]",
    multiple=True,
    help="Serve a model of the Hugging Face hub; repeatable. It is downloaded when it is asked "
    "for, if it fits.",
)
@hub_flags
@click.option(
    "--download-only", is_flag=True, help="Fetch what is missing of the hub's models, and exit."
)
@scheduling_flags
@shared_flags
@cache_flags
@load_flags
@memory_flags
@click.option(
    "--context-shift/--no-context-shift",
    default=False,
    show_default=True,
    help="Let answers go on without their oldest part when the context is full.",
)
@click.option(
    "-t",
    "--threads",
    type=click.IntRange(-1, 4096),
    default=-1,
    show_default=True,
    help="Threads per model; -1 or 0: all usable cores.",
)
@click.option(
    "--lora",
    "lora_files",
    multiple=True,
    help="LoRA adapter for the models; repeatable, or several with commas.",
)
@click.option(
    "--lora-scaled",
    "scaled_lora_files",
    multiple=True,
    metavar="FILE:SCALE",
    help="The same, with a scale; --lora means 1.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    envvar="LLAMA_API_KEY",
    help="Key that clients must send; repeatable, or several with commas. [env: LLAMA_API_KEY]",
)
@click.option(
    "--admin-key",
    "admin_keys",
    multiple=True,
    envvar="LLM_ROUTER_ADMIN_KEY",
    help="Key for managing models; then --api-key opens only what uses them. Repeatable, or "
    "several with commas. [env: LLM_ROUTER_ADMIN_KEY]",
)
@click.option(
    "--stop-timeout",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    help="Seconds after which everything has stopped, once asked to.",
)
@click.option(
    "--engine",
    default="process",
    show_default=True,
    help="What models run in: a worker process of ours, or what a plugin names.",
)
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="MODULE",
    help="Use this plugin too; repeatable. Installed ones are used anyway.",
)
@click.option(
    "--plugin-option",
    "given_plugin_options",
    multiple=True,
    metavar="NAME.OPTION=VALUE",
    help="Tell a plugin something; repeatable.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log each request, and details.")
def serve(
    *,
    host: str,
    port: int,
    models_dir: Path | None,
    model_files: tuple[Path, ...],
    hf_repos: tuple[str, ...],
    hf_file: str | None,
    download_only: bool,
    context_shift: bool,
    threads: int,
    lora_files: tuple[str, ...],
    scaled_lora_files: tuple[str, ...],
    api_keys: tuple[str, ...],
    admin_keys: tuple[str, ...],
    stop_timeout: int,
    plugins: tuple[str, ...],
    given_plugin_options: tuple[str, ...],
    verbose: bool,
    **options: Any,
) -> None:
    """Serve a directory of GGUF models over HTTP."""
    log.configure(verbose=verbose)
    if models_dir is None and not model_files and not hf_repos:
        raise click.UsageError(
            "no models: name a directory with --models-dir, a file with -m or a repository with -hf"
        )
    if models_dir is not None:
        _check_directory(models_dir)
    router = _router(
        models_dir=models_dir,
        models={**_named(model_files), **hub_models(hf_repos, hf_file)},
        context_shift=context_shift,
        n_threads=max(threads, 0),
        lora=adapters(split(lora_files), split(scaled_lora_files)),
        # Half of the time is for running answers; a worker that then ignores both the request
        # to stop and its termination is killed when the other half is over.
        stop_timeout_seconds=stop_timeout / 4,
        plugins=plugins,
        plugin_options=plugin_options(given_plugin_options),
        **options,
    )
    if download_only:
        sys.exit(0 if _downloaded(router, plugins) else 1)
    bound = server.bind(host, port)
    url = server.base_url(bound)
    app = LLMRouterApp(
        router=router,
        routes=("inference", "management", *added_routes(router)),
        **_access(split(api_keys), split(admin_keys), bound.getsockname()[0]),
    )

    def announce() -> None:
        models = router.models()
        if not models:
            logger.warning(
                "no models: put *.gguf files into %s and start again, or name them with -m",
                models_dir,
            )
        logger.info("serving on %s (models: %d), Ctrl-C stops", url, len(models))

    server.run(app, router, bound, on_ready=announce, stream_seconds=stop_timeout // 2)


def _router(**options: Any) -> Router | RemoteRouter:
    try:
        return RemoteRouter(**options) if options["mode"] == "shared" else Router(**options)
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error


def _downloaded(router: Router | RemoteRouter, plugins: Iterable[str]) -> bool:
    try:
        return download_all(router.config, plugins, sys.stdout)
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error


def _check_directory(path: Path) -> None:
    if not path.is_dir():
        problem = "is not a directory" if path.exists() else "does not exist"
        raise click.ClickException(
            f"the models directory {str(path)!r} {problem}; create it, or name another with "
            "--models-dir"
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise click.ClickException(
            f"the models directory {str(path)!r} cannot be read; give this user the right to, "
            "or name another with --models-dir"
        )


def _named(files: tuple[Path, ...]) -> dict[str, Path]:
    """Return the files by model id.

    Raises:
        click.ClickException: a file is missing.
        click.UsageError: two files have one name.
    """
    named: dict[str, Path] = {}
    for file in files:
        if not file.is_file():
            raise click.ClickException(
                f"the model file {str(file)!r} does not exist; check the path given with -m"
            )
        name = file.name.removesuffix(".gguf")
        if name in named:
            raise click.UsageError(f"two models are named {name!r}: rename one of the files")
        named[name] = file
    return named


def _access(keys: tuple[str, ...], admin_keys: tuple[str, ...], address: str) -> dict[str, Any]:
    """Return the middleware's options that say who may do what."""
    if admin_keys:
        return {"api_keys": keys, "admin_keys": admin_keys}
    if keys:
        return {"api_keys": keys, "admin_keys": keys}
    if is_loopback(address):
        return {"authorize": local_programs}
    logger.warning(
        "%s can be reached from other machines and there is no --api-key: everyone may use the "
        "models, loading and unloading by request is closed",
        address,
    )
    return {"authorize": nobody}
