"""What any plugin's object has to keep to, whatever it decides. For tests of plugins.

Each function raises AssertionError with a sentence that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llm_router_mw.protocols import (
    Candidate,
    ChatFormat,
    DeviceProbe,
    EngineFactory,
    Estimator,
    EvictionPolicy,
    ModelSource,
    PlacementPolicy,
    Shortfall,
)
from llm_router_mw.testing.devices import GIB, FakeDevices
from llm_router_mw.testing.gguf import Item, small_model
from llm_router_mw.types import (
    CompletionTask,
    Device,
    FinishDelta,
    InstanceKey,
    LoadOptions,
    Model,
    Placement,
)
from llm_router_mw.wire import Load

DEVICES = (
    (),
    tuple(FakeDevices().inventory()),
    tuple(FakeDevices({"gpu-0": 24 * GIB}).inventory()),
    tuple(FakeDevices({"gpu-0": 24 * GIB, "gpu-1": 8 * GIB}).inventory()),
)
"""What policies and estimators are tried with: nothing known, a host, one GPU, two unequal ones."""

_SHAPE: Mapping[str | bytes, Item] = {
    "llama.block_count": 3,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
_CHAT_FORMATS = {"template": "llm_router_mw.engine.chat_template:TemplateChatFormat"}


def check_eviction_policy(policy: EvictionPolicy) -> None:
    """See that *policy* ranks what it was given, changes nothing, and decides the same twice."""
    assert isinstance(policy, EvictionPolicy), "it needs name and rank(candidates, …)"
    for count in (1, 2, 50):
        candidates = tuple(map(_candidate, range(count)))
        shortfall = Shortfall(device="host", bytes=GIB, lacking={"host": GIB})
        first = list(policy.rank(candidates, shortfall, 1000.0))
        known = set(map(id, candidates))
        assert all(id(each) in known for each in first), "it made candidates up"
        assert len(set(map(id, first))) == len(first), "it named a candidate twice"
        again = list(policy.rank(candidates, shortfall, 1000.0))
        assert first == again, "it decides otherwise the second time: rank must be pure"


def check_placement_policy(policy: PlacementPolicy, folder: Path) -> None:
    """See that *policy* places models on devices that exist, and does the same twice."""
    assert isinstance(policy, PlacementPolicy), "it needs a name and place(model, devices)"
    model = _model(folder)
    for devices in DEVICES:
        placements = list(policy.place(model, devices))
        assert placements == list(policy.place(model, devices)), "place must be pure"
        for placement in placements:
            assert isinstance(placement, Placement), f"{placement!r} is no Placement"
            known = {device.id for device in devices}
            unknown = set(placement.devices) - known
            assert not unknown, f"it places on {sorted(unknown)}, and there are {sorted(known)}"
        degraded = [placement.degraded for placement in placements]
        assert degraded == sorted(degraded), "a degraded placement comes before a better one"


def check_estimator(estimator: Estimator, folder: Path) -> None:
    """See that *estimator* answers for devices that exist, and no less than it expects itself."""
    assert isinstance(estimator, Estimator), "it needs name and estimate(model, …)"
    model = _model(folder)
    for devices in DEVICES[1:]:
        estimate = estimator.estimate(model, Placement(), devices)
        if estimate is None:
            continue
        known = {device.id for device in devices}
        for device, upper in estimate.upper.items():
            assert device in known, f"it charges {device!r}, and there are {sorted(known)}"
            expected = estimate.expected.get(device)
            total = expected.total_bytes if expected is not None else 0
            assert 0 <= total <= upper, f"it expects {total} bytes of {device} and {upper} at most"


def check_device_probe(probe: DeviceProbe) -> None:
    """See that *probe* tells of devices with unique ids and sizes that can be."""
    assert isinstance(probe, DeviceProbe), "it needs a name, inventory() and used_bytes(pids)"
    devices = list(probe.inventory())
    assert all(isinstance(device, Device) for device in devices), "inventory holds Device only"
    ids = [device.id for device in devices]
    assert len(set(ids)) == len(ids), f"two devices have one id: {ids}"
    for device in devices:
        sizes = (device.free_bytes, device.total_bytes)
        assert 0 <= sizes[0] <= sizes[1], f"{device.id} has {sizes[0]} bytes free of {sizes[1]}"
    assert all(size >= 0 for size in probe.used_bytes([]).values()), "it tells of negative use"


def check_model_source(source: ModelSource) -> None:
    """See that *source* names each model once, with a path."""
    assert isinstance(source, ModelSource), "it needs a name and models()"
    models = list(source.models())
    ids = [model.id for model in models]
    assert len(set(ids)) == len(ids), f"two models have one id: {ids}"
    assert all(model.id and model.path for model in models), "a model has no id or no path"


def check_chat_format(chat_format: type[ChatFormat], template: str = "") -> None:
    """See that *chat_format* makes a prompt and gives back all the text that it is fed."""
    made = chat_format(template, "<s>", "</s>")
    prepared = made.prepare([{"role": "user", "content": "How are you?"}])
    assert "How are you?" in prepared.prompt, "the prompt does not hold what was said"
    whole = _text(chat_format(template, "<s>", "</s>"), ["I am fine, thanks."])
    pieces = _text(chat_format(template, "<s>", "</s>"), list("I am fine, thanks."))
    assert whole == pieces, f"in pieces it reads {pieces!r}, at once {whole!r}"


async def check_engine(factory: EngineFactory, model: Model) -> None:
    """See that *factory* makes an instance which loads *model*, answers, cancels and stops."""
    assert isinstance(factory, EngineFactory), "it needs a name, running() and create()"
    async with factory.running():
        instance = await factory.create()
        try:
            order = Load(path=model.path, options=model.options, chat_formats=_CHAT_FORMATS)
            info = await instance.load(order, lambda fraction: None)
            assert info.n_ctx > 0, "a loaded model has no context"
            task = CompletionTask(prompt="Once", max_tokens=4)
            assert await _ends(instance.submit, task) == 1, "an answer has one end"
            assert await _ends(instance.submit, task, cancel=True) <= 1, "a cancelled answer too"
        finally:
            await instance.stop(5.0)
        report = await instance.wait()
        assert report.offence == "", f"it did not stop as it was asked: {report.offence}"


async def _ends(
    submit: Callable[..., object], task: CompletionTask, *, cancel: bool = False
) -> int:
    finished: list[bool] = []
    stream = submit(task, lambda: finished.append(True))
    assert hasattr(stream, "cancel"), "submit returns a stream of deltas"
    assert hasattr(stream, "__aiter__"), "submit returns a stream of deltas"
    if cancel:
        stream.cancel()
    deltas = [delta async for delta in stream]
    assert len(finished) == 1, f"on_finished was called {len(finished)} times"
    return sum(isinstance(delta, FinishDelta) for delta in deltas)


def _text(made: ChatFormat, pieces: Sequence[str]) -> str:
    parser = made.parser()
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    deltas += parser.finish()
    return "".join(getattr(delta, "text", "") for delta in deltas)


def _model(folder: Path) -> Model:
    path = small_model(_SHAPE).write(folder / "conformance.gguf")
    return Model(id="conformance", path=str(path), source="testing")


def _candidate(number: int) -> Candidate:
    return Candidate(
        instance=InstanceKey(f"/models/{number}.gguf", LoadOptions()),
        step="stop",
        models=(f"model-{number}",),
        freed={"host": (number % 7 + 1) * GIB, "slots": 1},
        last_used_seconds=float(number * 37 % 900),
        loaded_at_seconds=float(number),
        load_seconds=1.0 + number % 5,
        uses=number % 11,
        heat=float(number % 3),
    )
