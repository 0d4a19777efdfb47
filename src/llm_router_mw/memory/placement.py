"""The default placement policy: one GPU, else several, else a part on the host, else all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import structs

from llm_router_mw.context_shape import context_shape
from llm_router_mw.errors import ConfigError, ModelFileError
from llm_router_mw.memory.allowance import Allowance, allowance_bytes
from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.inventory import DEFAULT_MARGIN_MIB
from llm_router_mw.memory.model_file import ModelFiles
from llm_router_mw.types import HOST, Device, LoadOptions, Model, Placement
from llm_router_mw.units import MIB

_PARTIAL_STEPS = 16
"""Numbers of layers that are tried where not all have room; each has to be priced."""
_EXPERTS_STEPS, _FEWER_STEPS = 12, 4
"""The same of a model of experts: layers whose experts leave the GPUs, then whole layers."""
_DIVIDED = "MIG-"
"""How the id of a part of a GPU begins: CUDA lets a process use one of them only."""


class AutoPlacement:
    """Proposes every GPU by itself, the emptiest first, then more and more of them together.

    What the load options say is never changed: a number of layers, shares of GPUs, a way to split,
    a context. A context that they leave open may shrink before layers leave the GPUs.
    """

    name = "auto"

    def __init__(
        self, margin: Allowance = DEFAULT_MARGIN_MIB, files: ModelFiles | None = None
    ) -> None:
        """*margin* is the option ``models_memory_margin``: what is not there to be shared out."""
        self._margin = margin
        self._files = files or ModelFiles()

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        """Return the placements that the options of *model* allow, best first.

        Raises:
            ConfigError: the options name GPUs that there are not.
        """
        options, shape = model.options, self._shape(model)
        contexts = _contexts(options, shape)
        gpus = _usable(devices)
        if not gpus or options.n_gpu_layers == 0:
            return _with_contexts([Placement()], contexts)
        whole = list(dict.fromkeys(self._on_gpus(options, gpus)))
        placements = _with_contexts(whole, contexts)
        if options.n_gpu_layers < 0:
            placements += self._falls(options, shape, gpus, whole, contexts)
        return placements

    def _shape(self, model: Model) -> Hyperparameters | None:
        """Return what the file says; None if it cannot be read: what loads it will say why."""
        try:
            return self._files.read(model).shape
        except ModelFileError:
            return None

    def _on_gpus(self, options: LoadOptions, gpus: Sequence[Device]) -> Iterator[Placement]:
        """Yield the ways to put as many layers on *gpus* as the options say."""
        layers = options.n_gpu_layers
        if options.split_mode == "none":
            yield _single(_indexed(gpus, options.main_gpu), layers)
            return
        if options.tensor_split:
            yield _as_asked(options, gpus)
            return
        by_room = sorted(gpus, key=self._room, reverse=True)
        together = _together(by_room)
        if options.split_mode == "layer" or not together:
            for gpu in by_room:
                yield _single(gpu, layers)
        least = 2 if options.split_mode == "layer" else len(together)
        for count in range(max(1, least), len(together) + 1):
            # In the order in which llama.cpp has them.
            chosen = [gpu for gpu in gpus if gpu in together[:count]]
            yield from self._splits(options, chosen)

    def _splits(self, options: LoadOptions, gpus: Sequence[Device]) -> Iterator[Placement]:
        """Yield the splits of *gpus*: by what is free of each now, and were all models gone."""
        for size in (self._room, self._whole):
            sizes = [size(gpu) for gpu in gpus]
            if all(sizes):
                yield _split(options, gpus, sizes)
        if options.split_mode == "row" and not all(self._whole(gpu) for gpu in gpus):
            yield _split(options, gpus, [1] * len(gpus))

    def _falls(
        self,
        options: LoadOptions,
        shape: Hyperparameters | None,
        gpus: Sequence[Device],
        whole: Sequence[Placement],
        contexts: Sequence[int],
    ) -> list[Placement]:
        """Return what is left if not all layers have room: fewer of them, at last none.

        Of a model of experts these leave the GPUs first: they are most of its weights, and only a
        few of them are used for a token, while attention works on all that was said before.
        """
        found: list[Placement] = []
        # A GPU that shares the host's memory gains nothing from what is moved there.
        is_apart = any(gpu.pool != HOST for gpu in gpus)
        if options.allow_partial_offload and shape is not None and is_apart:
            most = max(len(placement.devices) for placement in whole)
            widest = [placement for placement in whole if len(placement.devices) == most]
            targets = widest if most > 1 else whole[:1]
            least = max(1, options.min_gpu_layers)
            parts = _parts(options, shape, least, len(targets))
            found += [
                structs.replace(
                    each,
                    n_gpu_layers=n_layers,
                    n_cpu_moe=n_cpu_moe,
                    n_ctx=contexts[-1],
                    degraded=True,
                )
                for n_layers, n_cpu_moe in parts
                for each in targets
            ]
        if options.min_gpu_layers == 0:
            found += _with_contexts([Placement(degraded=True)], contexts)
        return found

    def _room(self, gpu: Device) -> int:
        """Return what is free of *gpu* beside the margin."""
        return max(0, gpu.free_bytes - self._margin_of(gpu))

    def _whole(self, gpu: Device) -> int:
        """Return what there is of *gpu* beside the margin, were all models gone."""
        return max(0, gpu.total_bytes - self._margin_of(gpu))

    def _margin_of(self, gpu: Device) -> int:
        margin = allowance_bytes(self._margin, gpu)
        return DEFAULT_MARGIN_MIB * MIB if margin is None else margin


def _usable(devices: Sequence[Device]) -> list[Device]:
    """Return the GPUs; like llama.cpp, those that share the host's memory only if no other is."""
    gpus = [device for device in devices if device.kind != "host"]
    return [gpu for gpu in gpus if gpu.pool != HOST] or gpus


def _together(gpus: Sequence[Device]) -> list[Device]:
    """Return those of *gpus* that one process can use together: of the first one's kind."""
    whole = [gpu for gpu in gpus if not gpu.id.startswith(_DIVIDED)]
    return [gpu for gpu in whole if gpu.kind == whole[0].kind]


def _contexts(options: LoadOptions, shape: Hyperparameters | None) -> list[int]:
    """Return the contexts that are allowed, the largest first; 0 leaves it to the load."""
    if options.n_ctx or shape is None:
        return [options.n_ctx]
    most = context_shape(options, shape.n_ctx_train).n_ctx
    least = min(most, options.fit_ctx)
    found = [most]
    while found[-1] // 2 > least:
        found.append(found[-1] // 2)
    return [*found, least] if least < most else found


def _with_contexts(placements: Sequence[Placement], contexts: Sequence[int]) -> list[Placement]:
    return [structs.replace(each, n_ctx=n_ctx) for n_ctx in contexts for each in placements]


def _single(gpu: Device, n_layers: int) -> Placement:
    return Placement(devices=(gpu.id,), n_gpu_layers=n_layers)


def _split(options: LoadOptions, gpus: Sequence[Device], sizes: Sequence[float]) -> Placement:
    """Return a split of *gpus* in proportion to *sizes*."""
    if len(gpus) == 1:
        return _single(gpus[0], options.n_gpu_layers)
    # Rounded, so that a few bytes more or less do not make another placement to be priced.
    shares = [max(0.01, round(size / sum(sizes), 2)) for size in sizes]
    return Placement(
        devices=tuple(gpu.id for gpu in gpus),
        n_gpu_layers=options.n_gpu_layers,
        split_mode=options.split_mode,
        tensor_split=tuple(shares),
        main_gpu=options.main_gpu if options.main_gpu < len(gpus) else 0,
    )


def _as_asked(options: LoadOptions, gpus: Sequence[Device]) -> Placement:
    """Return the split that the options say: shares of GPUs in llama.cpp's order."""
    pairs = [pair for pair in zip(gpus, options.tensor_split, strict=False) if pair[1] > 0]
    if not pairs:
        raise ConfigError(
            f"tensor_split is {list(options.tensor_split)}, which gives nothing to any of the "
            f"{len(gpus)} GPUs that there are; 'llm-router-mw devices' lists them",
            param="tensor_split",
        )
    chosen = [gpu for gpu, _ in pairs]
    if len(chosen) == 1:
        return _single(chosen[0], options.n_gpu_layers)
    main = _indexed(gpus, options.main_gpu)
    return Placement(
        devices=tuple(gpu.id for gpu in chosen),
        n_gpu_layers=options.n_gpu_layers,
        split_mode=options.split_mode,
        tensor_split=tuple(share for _, share in pairs),
        main_gpu=chosen.index(main) if main in chosen else 0,
    )


def _indexed(gpus: Sequence[Device], index: int) -> Device:
    if index >= len(gpus):
        raise ConfigError(
            f"main_gpu is {index}, and there are {len(gpus)} GPUs; 'llm-router-mw devices' lists "
            "them, the first is 0",
            param="main_gpu",
        )
    return gpus[index]


def _parts(
    options: LoadOptions, shape: Hyperparameters, least: int, n_targets: int
) -> list[tuple[int, int]]:
    """Return layers on the GPUs, and layers without their experts there, best first.

    Of the first there are *least* at least.
    """
    all_layers = shape.n_layer_all + 1
    said = options.cpu_moe or options.n_cpu_moe or options.override_tensor
    if not shape.n_expert or said:  # where tensors go that were named is not changed
        return [(n, 0) for n in _spread(least, all_layers - 1, _PARTIAL_STEPS // n_targets)][::-1]
    experts = _spread(1, shape.n_layer_all, _EXPERTS_STEPS // n_targets)
    fewer = _spread(least, all_layers - 1, _FEWER_STEPS // n_targets)[::-1]
    return [(-1, n) for n in experts] + [(n, shape.n_layer_all) for n in fewer]


def _spread(least: int, most: int, steps: int) -> list[int]:
    """Return numbers from *least* to *most*, evenly spread; both, if there is only one step."""
    steps = max(2, steps)
    spread = {least + (most - least) * step // (steps - 1) for step in range(steps)}
    return sorted(n for n in spread if least <= n <= most)
