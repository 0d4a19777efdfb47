"""``llm-router-mw estimate``: what a model will take, on machines that one has or may buy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import anyio
import click
import msgspec

from llm_router_mw.cli.device_list import parse_devices
from llm_router_mw.cli.estimate_table import print_estimate
from llm_router_mw.cli.hub_flags import hub_flags
from llm_router_mw.cli.load_flags import load_flags
from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.errors import ConfigError, LLMRouterError
from llm_router_mw.gguf import first_shard
from llm_router_mw.hub import Hub
from llm_router_mw.hub_reference import parse_reference
from llm_router_mw.memory.inventory import Inventory
from llm_router_mw.memory.outlook import look_ahead
from llm_router_mw.router.registry import load_registry
from llm_router_mw.types import HOST, Device, LoadOptions, Model, Placement, Pooling
from llm_router_mw.units import MIB


@click.command()
@click.argument("name", metavar="FILE|OWNER/NAME[:QUANT]")
@hub_flags
@load_flags
@click.option(
    "--pooling",
    type=click.Choice([each for each in get_args(Pooling) if each]),
    default=None,
    help="The model gives embeddings, or ranks.",
)
@click.option(
    "-md",
    "--model-draft",
    "draft",
    type=click.Path(exists=True, dir_okay=False),
    default=None,
    help="A model that drafts for it in the same process, as llama-server can.",
)
@click.option(
    "-mm",
    "--mmproj",
    type=click.Path(exists=True, dir_okay=False),
    default=None,
    help="A projector of images or sound in the same process, as llama-server can.",
)
@click.option(
    "--mmproj-offload/--no-mmproj-offload",
    default=True,
    show_default=True,
    help="Put the projector on the first GPU.",
)
@click.option(
    "--devices",
    metavar="KIND:SIZE,…",
    default=None,
    help="Devices to think of, as cuda:24GiB,host:64GiB; without it those of this machine.",
)
@click.option(
    "--models-memory-margin",
    "margin_mib",
    type=click.IntRange(0, 2**40),
    default=1024,
    show_default=True,
    metavar="MiB",
    help="What must stay free on each device.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def estimate(
    *,
    name: str,
    hf_file: str | None,
    hf_token: str | None,
    offline: bool,
    pooling: Pooling | None,
    draft: str | None,
    mmproj: str | None,
    mmproj_offload: bool,
    devices: str | None,
    margin_mib: int,
    as_json: bool,
    **load: Any,
) -> None:
    """Say what a model takes on each device, and whether it fits.

    It is a file, or a model of the hub, of which the header alone is read.
    """
    try:
        hub = Hub(os.environ, token=hf_token, offline=offline)
        options = parse_config(load, pooling=pooling or "").load
        with TemporaryDirectory(prefix="llm-router-mw-") as folder:
            model = _model(name, hf_file, hub, Path(folder), options)
            found = _own_devices() if devices is None else parse_devices(devices)
            outlook = look_ahead(
                model,
                _placement(model, found),
                found,
                margin_mib * MIB,
                draft,
                mmproj,
                mmproj_offload=mmproj_offload,
            )
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(outlook)).decode())
    else:
        print_estimate(outlook, model.id, sys.stdout)


def _model(name: str, hf_file: str | None, hub: Hub, folder: Path, options: LoadOptions) -> Model:
    """Return the model that *name* means; headers from the hub are kept in *folder*."""
    file = Path(name)
    if file.is_file():
        path = first_shard(file)
        return Model(id=file.name, path=str(path), source="command", options=options)
    if file.suffix == ".gguf":
        raise click.ClickException(f"the model file {name!r} does not exist; check the path")
    try:
        reference = parse_reference(name, hf_file)
    except ConfigError as error:
        raise click.ClickException(f"there is no file {name!r}, and as {error.message}") from error
    path = hub.find(reference) or anyio.run(hub.peek, reference, folder)
    return Model(id=str(reference), path=str(path), source="hub", options=options)


def _own_devices() -> tuple[Device, ...]:
    """Return the devices of this machine, as the registered probes see them."""
    probes = load_registry(RouterConfig()).probes
    return Inventory(tuple(probes.values())).devices()


def _placement(model: Model, devices: tuple[Device, ...]) -> Placement:
    """Return where the flags put *model*: on all GPUs, unless they say otherwise."""
    options = model.options
    gpus = tuple(device.id for device in devices if device.id != HOST)
    if not gpus or not options.n_gpu_layers:
        return Placement()
    if options.main_gpu >= len(gpus):
        raise click.UsageError(
            f"--main-gpu is {options.main_gpu}, but there are {len(gpus)} GPUs; they count from 0"
        )
    return Placement(
        devices=gpus,
        n_gpu_layers=options.n_gpu_layers,
        split_mode=options.split_mode,
        tensor_split=options.tensor_split,
        main_gpu=options.main_gpu,
    )
