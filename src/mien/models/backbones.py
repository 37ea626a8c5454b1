"""Backbones: chips in, one vector a chip out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mien.errors import ConfigError, near_miss

__all__ = ["BACKBONES", "ResidualNet", "build_backbone"]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    """x + two dense 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class ResidualNet(nn.Module):
    """A small residual network of dense 3x3 convolutions, global average at the end.

    widths: channels of each stage; every stage after the first halves the side.  depths: residual blocks a stage.
    Input (n, channels, h, w); output (n, widths[-1]).
    """

    def __init__(self, channels: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers += [_conv(before, width, 1 if stage == 0 else 2), nn.ReLU()]
            layers += [_Residual(width) for _ in range(depth)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.features = before

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(dim=(2, 3))


BACKBONES: dict[str, Callable[[int], ResidualNet]] = {
    "mien-small": lambda channels: ResidualNet(channels, (24, 48, 96, 192), (0, 1, 1, 2)),
    "mien-nano": lambda channels: ResidualNet(channels, (8, 16, 32, 48), (0, 0, 1, 1)),
}


def build_backbone(name: str, channels: int) -> ResidualNet:
    """A backbone by name. Raises ConfigError with the nearest known name."""
    if name not in BACKBONES:
        raise ConfigError(f"network.backbone: unknown backbone {name!r}; {near_miss(name, BACKBONES)}")
    return BACKBONES[name](channels)
