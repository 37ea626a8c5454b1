"""Network = backbone + head; and the graph as it is exported, with every number that could be got wrong inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.labels import LabelSet, affect_means
from mien.models.backbones import build_backbone
from mien.recipe import NetworkSection
from mien.spec import CropSpec, ModelSpec

__all__ = ["ExportGraph", "Network", "build_network"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Network(nn.Module):
    """Chips (n, 3, h, w), RGB 0..255, to logits (n, c). Scaling, grey conversion and the mirror average happen inside."""

    def __init__(self, section: NetworkSection, labels: LabelSet, crop: CropSpec) -> None:
        super().__init__()
        self.luma: Tensor
        self.mirror = section.mirror
        self.grey = crop.colour != "rgb"
        self.register_buffer("luma", torch.tensor(_LUMA).reshape(1, 3, 1, 1), persistent=False)
        self.backbone = build_backbone(section.backbone, 1 if self.grey else 3)
        self.dropout = nn.Dropout(section.dropout)
        self.expression = nn.Linear(self.backbone.features, len(labels))

    def forward(self, chips: Tensor) -> Tensor:
        if self.grey:
            chips = (chips * self.luma).sum(dim=1, keepdim=True)
        chips = (chips - 128.0) / 64.0
        logits = self._logits(chips)
        return (logits + self._logits(chips.flip(3))) / 2 if self.mirror and not self.training else logits

    def _logits(self, chips: Tensor) -> Tensor:
        return self.expression(self.dropout(self.backbone(chips)))


class ExportGraph(nn.Module):
    """Chips to (probabilities (n, c), affect (n, 2)): temperature, softmax and the circumplex inside the graph."""

    def __init__(self, network: Network, spec: ModelSpec) -> None:
        super().__init__()
        self.means: Tensor
        self.network = network
        self.temperature = spec.temperature
        means = affect_means(LabelSet(spec.labels))
        if spec.affect == "none":
            means = means * float("nan")
        self.register_buffer("means", torch.from_numpy(means))

    def forward(self, chips: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = torch.softmax(self.network(chips) / self.temperature, dim=1)
        return probabilities, probabilities @ self.means


def build_network(section: NetworkSection, labels: LabelSet, crop: CropSpec) -> Network:
    """A network with fresh weights. Raises ConfigError for an unknown backbone."""
    return Network(section, labels, crop)
