"""Training that feels the rounding of an int8 file, so that the file loses less (B. Jacob et al. 2018, arXiv:1712.05877)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mien.models.network import Answer, Network
from mien.sections import QuantizeSection

__all__ = ["rounded_answer", "rounded_input", "rounded_layers", "rounded_weight"]

_HEADS = ("expression", "affect", "auxiliary")


def rounded_answer(network: Network, chips: Tensor, section: QuantizeSection) -> Answer:
    """What the network answers when the weights of its layers and what goes into them are rounded as in an int8 file.

    The first layer and the heads are left as they are, as in the file. Gradients pass the rounding as if it were not there.
    """
    layers = rounded_layers(network)
    weights = {f"{name}.weight": rounded_weight(layer.weight, section.weights) for name, layer in layers.items()}
    hooks = [layer.register_forward_pre_hook(partial(_hook, section.bits)) for layer in layers.values()]
    try:
        answer: Answer = functional_call(network, weights, (chips,))
    finally:
        for hook in hooks:
            hook.remove()
    return answer


def rounded_layers(network: Network) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers that an int8 file computes with eight bits, by name: all with weights but the first and the heads."""
    found = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and name not in _HEADS
    }
    return dict(list(found.items())[1:])


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """(out, ...) weights, each output channel on a grid of its own, symmetric around 0.

    Merging a norm into the layer, as the export does, multiplies a channel and its grid alike and changes nothing.
    """
    top = 2 ** (bits - 1)
    scale = weight.detach().float().flatten(1).abs().amax(dim=1).clamp_min(1e-12) / top
    return torch.fake_quantize_per_channel_affine(
        weight.float(), scale, torch.zeros_like(scale, dtype=torch.int32), 0, -top, top
    )


def rounded_input(x: Tensor, bits: int) -> Tensor:
    """A layer's input on one grid from its least to its largest value in this batch, 0 exactly on it."""
    top = 2**bits - 1
    low, high = (bound.float() for bound in torch.aminmax(x.detach()))
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = ((high - low) / top).clamp_min(1e-12)
    return torch.fake_quantize_per_tensor_affine(x.float(), scale, (-low / scale).round().to(torch.int32), 0, top)


def _hook(bits: int, _layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (rounded_input(given[0], bits), *given[1:])
