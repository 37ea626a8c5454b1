"""From a backbone's features to answers: pooling, hidden layers, the expression head, the affect head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.sections import NetworkSection

__all__ = ["GemPool", "hidden_layers", "pooling"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


class GemPool(nn.Module):
    """Generalised mean over the map, with a learned power (Radenovic et al. 2018, arXiv:1711.02512): (n, c, h, w) -> (n, c)."""

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(self.power).mean(dim=(2, 3)).pow(1 / self.power)


class _Average(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class _Max(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))


class _AverageMax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.mean(dim=(2, 3)) + x.amax(dim=(2, 3))) / 2


_POOLS: dict[str, type[nn.Module]] = {
    "average": _Average,
    "max": _Max,
    "average-max": _AverageMax,
    "gem": GemPool,
    "flatten": nn.Flatten,
    "own": nn.Identity,
}


def pooling(name: str) -> nn.Module:
    """(n, c, h, w) -> (n, features), by NetworkSection's word."""
    return _POOLS[name]()


def hidden_layers(section: NetworkSection, features: int) -> tuple[nn.Sequential, int]:
    """Linear layers with activation, then dropout; and how many features leave them."""
    layers: list[nn.Module] = []
    for width in section.hidden:
        layers += [nn.Linear(features, width), _ACTIVATIONS[section.activation]()]
        features = width
    return nn.Sequential(*layers, nn.Dropout(section.dropout)), features
