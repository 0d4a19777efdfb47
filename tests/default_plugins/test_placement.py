"""The shipped placement policy is told of the margin."""

from __future__ import annotations

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins.placement import llm_router_register_placement_policies
from llm_router_mw.protocols import PlacementPolicy
from llm_router_mw.types import Device, Model


def gpu(name: str, free_mib: int) -> Device:
    size = free_mib * 1024**2
    return Device(id=name, pool=name, kind="cuda", name="GPU", total_bytes=size, free_bytes=size)


def test_the_default_is_registered_and_keeps_the_margin() -> None:
    config = RouterConfig(models_memory_margin={"a": 0, "default": 1000})
    [policy] = llm_router_register_placement_policies(config)
    assert isinstance(policy, PlacementPolicy)
    assert policy.name == RouterConfig().placement_policy
    model = Model(id="m", path="/none.gguf", source="test")
    shares = [each.tensor_split for each in policy.place(model, [gpu("a", 1000), gpu("b", 2000)])]
    assert (0.5, 0.5) in shares
