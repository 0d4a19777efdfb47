"""Flags that say how a model is loaded, under llama-server's names; each is a load option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from llm_router_mw.cli.values import split
from llm_router_mw.types import CacheType, FlashAttention, SplitMode

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _layers(context: click.Context, parameter: click.Parameter, value: str) -> int:
    if value in ("all", "auto"):
        return -1
    try:
        return int(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no number of layers; write one, or all") from error


def _shares(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in split([value.replace("/", ",")]))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of numbers, as 3,1") from error


def _parts(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    return split(value)


_FLAGS = (
    click.option(
        "-c",
        "--ctx-size",
        "n_ctx",
        type=click.IntRange(0, 2**31 - 1),
        default=0,
        show_default=True,
        help="Tokens of context per model, shared by its requests; 0: from the model.",
    ),
    click.option(
        "-np",
        "--parallel",
        "n_parallel",
        type=click.IntRange(1, 256),
        default=4,
        show_default=True,
        help="Requests that one model answers at once.",
    ),
    click.option(
        "-kvu/-no-kvu",
        "--kv-unified/--no-kv-unified",
        "kv_unified",
        default=True,
        show_default=True,
        help="Let all requests share the context, or give each a part of its own.",
    ),
    click.option(
        "-b",
        "--batch-size",
        "n_batch",
        type=click.IntRange(1, 65_536),
        default=512,
        show_default=True,
        help="Tokens that one step may hold.",
    ),
    click.option(
        "-ub",
        "--ubatch-size",
        "n_ubatch",
        type=click.IntRange(0, 65_536),
        default=0,
        show_default=True,
        help="Tokens computed at once; 0: 512 at most.",
    ),
    click.option(
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        "n_gpu_layers",
        default="all",
        callback=_layers,
        metavar="NUMBER",
        show_default=True,
        help="Layers on the GPUs: a number, or all.",
    ),
    click.option(
        "-sm",
        "--split-mode",
        "split_mode",
        type=click.Choice(get_args(SplitMode)),
        default="layer",
        show_default=True,
        help="How several GPUs share a model.",
    ),
    click.option(
        "-ts",
        "--tensor-split",
        "tensor_split",
        default="",
        callback=_shares,
        metavar="N0,N1,…",
        help="Share of each GPU, as 3,1.",
    ),
    click.option(
        "-mg",
        "--main-gpu",
        "main_gpu",
        type=click.IntRange(0, 1023),
        default=0,
        show_default=True,
        help="GPU that takes everything with --split-mode none.",
    ),
    click.option(
        "-ot",
        "--override-tensor",
        "override_tensor",
        multiple=True,
        callback=_parts,
        metavar="REGEX=BUFFER",
        help="Where tensors go whose names match; repeatable, or several with commas.",
    ),
    click.option(
        "-cmoe", "--cpu-moe", "cpu_moe", is_flag=True, help="Keep all experts on the host."
    ),
    click.option(
        "-ncmoe",
        "--n-cpu-moe",
        "n_cpu_moe",
        type=click.IntRange(0, 512),
        default=0,
        show_default=True,
        help="Keep the experts of the first so many layers on the host.",
    ),
    click.option(
        "-fa",
        "--flash-attn",
        "flash_attn",
        type=click.Choice(get_args(FlashAttention)),
        default="auto",
        show_default=True,
        help="Flash attention; auto: where the backend can.",
    ),
    click.option(
        "-ctk",
        "--cache-type-k",
        "type_k",
        type=click.Choice(get_args(CacheType)),
        default="f16",
        show_default=True,
        help="How keys are cached.",
    ),
    click.option(
        "-ctv",
        "--cache-type-v",
        "type_v",
        type=click.Choice(get_args(CacheType)),
        default="f16",
        show_default=True,
        help="How values are cached.",
    ),
    click.option(
        "--swa-full", "swa_full", is_flag=True, help="Cache the whole context in sliding layers."
    ),
    click.option(
        "-kvo/-nkvo",
        "--kv-offload/--no-kv-offload",
        "offload_kqv",
        default=True,
        show_default=True,
        help="Cache on the GPUs, or on the host.",
    ),
    click.option(
        "--op-offload/--no-op-offload",
        "op_offload",
        default=True,
        show_default=True,
        help="Let GPUs compute large batches with weights that lie on the host.",
    ),
    click.option(
        "--mmap/--no-mmap",
        "use_mmap",
        default=True,
        show_default=True,
        help="Map the files, or read them.",
    ),
    click.option("--mlock", "use_mlock", is_flag=True, help="Keep weights from being swapped out."),
    click.option(
        "--touch-context",
        "touch_context",
        is_flag=True,
        help="Let contexts take the host's memory at once, not as they fill.",
    ),
)


def load_flags(command: CommandT) -> CommandT:
    """Give *command* the flags; it gets the load options by their own names."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command
