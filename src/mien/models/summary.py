"""What a network is made of: layers with their output shapes, parameters and multiply-adds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mien.labels import LabelSet
from mien.models.network import Network, build_network
from mien.sections import NetworkSection
from mien.spec import CropSpec

__all__ = ["Layer", "summarise"]


class Layer(NamedTuple):
    """A module at a depth of the network: its output's shape for one chip, its parameters and millions of multiply-adds."""

    name: str
    kind: str
    depth: int
    shape: tuple[int, ...]
    parameters: int
    mmacs: float


def summarise(section: NetworkSection, labels: LabelSet, crop: CropSpec, depth: int = 2) -> list[Layer]:
    """The layers down to a depth, the whole network first. Built on torch's meta device: no memory, no weights."""
    import msgspec

    with torch.device("meta"):
        network = build_network(msgspec.structs.replace(section, pretrained=False), labels, crop).eval()
        counter = FlopCounterMode(display=False)
        shapes = _shapes(network, crop, counter)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    layers = []
    for name, module in network.named_modules():
        deep = name.count(".") + 1 if name else 0
        if deep > depth or name not in shapes:
            continue
        size = sum(p.numel() for p in module.parameters())
        key = f"{type(network).__name__}.{name}" if name else type(network).__name__
        layers.append(Layer(name, type(module).__name__, deep, shapes[name], size, flops.get(key, 0) / 2e6))
    return layers


def _shapes(network: Network, crop: CropSpec, counter: FlopCounterMode) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = [output] if isinstance(output, Tensor) else [t for t in output if isinstance(t, Tensor)]
            if tensors:
                shapes[name] = tuple(tensors[0].shape[1:])

        return note

    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    with counter:
        network(torch.zeros(1, 3, crop.height, crop.width, device="meta"))
    for hook in hooks:
        hook.remove()
    return shapes
