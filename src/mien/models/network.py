"""Network = backbone + heads; and the graph as it is exported, with every number that could be got wrong inside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mien.errors import ConfigError
from mien.labels import LabelSet, affect_means
from mien.models.backbones import build_backbone
from mien.models.heads import hidden_layers, pooling
from mien.sections import NetworkSection
from mien.spec import CropSpec, ModelSpec

__all__ = ["Answer", "ExportGraph", "Full", "Network", "build_network"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Answer(NamedTuple):
    """logits (n, c), or None without an expression head; affect (n, 2) valence and arousal, or None without that head;
    auxiliary (n, a): logits of the head for other labels, while training."""

    logits: Tensor | None
    affect: Tensor | None
    auxiliary: Tensor | None = None


class Full(NamedTuple):
    """An Answer's two; maps (n, c, h', w'), or None where not asked for; features (n, d), the vector before the heads."""

    logits: Tensor | None
    affect: Tensor | None
    maps: Tensor | None
    features: Tensor


class Network(nn.Module):
    """Chips (n, 3, h, w), RGB 0..255, to an Answer. Scaling, grey conversion and the mirror average happen inside.

    auxiliary: labels of a second expression head; 0 for none.
    """

    def __init__(self, section: NetworkSection, labels: LabelSet, crop: CropSpec, auxiliary: int = 0) -> None:
        super().__init__()
        self.luma: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.mirror = section.mirror
        ours = section.backbone.startswith("mien-") or section.backbone == "fcn"
        self.grey = section.channels == 1 or (section.channels == 0 and ours and crop.colour != "rgb")
        channels = 1 if self.grey else 3
        self.backbone = build_backbone(
            section.backbone, channels, (crop.height, crop.width), section.pretrained, section.pool == "own"
        )
        self.register_buffer("luma", torch.tensor(_LUMA).reshape(1, 3, 1, 1), persistent=False)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.backbone, name)).reshape(1, -1, 1, 1)
            self.register_buffer(name, values.mean().reshape(1, 1, 1, 1) if self.grey else values, persistent=False)
        self.pool = pooling(section.pool)
        self.hidden, features = hidden_layers(section, self.backbone.features)
        self.features, self.classes = features, len(labels)
        self.expression = nn.Linear(features, len(labels)) if section.expression else None
        self.affect = nn.Linear(features, 2) if section.affect == "trained" else None
        self.auxiliary = nn.Linear(features, auxiliary) if auxiliary else None

    def forward(self, chips: Tensor) -> Answer:
        chips = self._scaled(chips)
        answer = self._answer(chips)
        if not self.mirror or self.training:
            return answer
        other = self._answer(chips.flip(3))
        return Answer(*(None if a is None else (a + b) / 2 for a, b in zip(answer, other, strict=True)))  # type: ignore[operator]

    def full(self, chips: Tensor, maps: bool = False) -> Full:
        """The answer and what led to it; as `forward`, averaged with the mirror image where the network does so.

        maps: also the logits of each place of the feature map: what the expression head says where the pooled vector is that
        place's. With average pooling and no hidden layers these are class activation maps (B. Zhou et al. 2016,
        arXiv:1512.04150) with the bias, and their mean over the places is the logits.
        Raises ConfigError: the network has no map (it pools itself or is flattened) or no expression head.
        """
        chips = self._scaled(chips)
        full = self._full(chips, maps)
        if not self.mirror or self.training:
            return full
        other = self._full(chips.flip(3), maps)
        turned = other if other.maps is None else other._replace(maps=other.maps.flip(3))
        return Full(*(None if a is None else (a + b) / 2 for a, b in zip(full, turned, strict=True)))  # type: ignore[arg-type,operator]

    def _full(self, chips: Tensor, maps: bool) -> Full:
        seen = self.backbone(chips)
        x = self.hidden(self.pool(seen))
        return Full(*self._heads(x)[:2], self._maps(seen) if maps else None, x)

    def _maps(self, seen: Tensor) -> Tensor:
        if self.expression is None or seen.ndim != 4 or isinstance(self.pool, nn.Flatten | nn.Identity):
            raise ConfigError(
                "network: no class maps in it: they need an expression head over a pooled feature map (network.pool is "
                "average, max, average-max or gem); `mien predict --explain` covers parts of the face instead"
            )
        _, c, h, w = seen.shape
        places = seen.permute(0, 2, 3, 1).reshape(-1, c, 1, 1)
        return self.expression(self.hidden(self.pool(places))).reshape(-1, h, w, self.classes).permute(0, 3, 1, 2)

    def _scaled(self, chips: Tensor) -> Tensor:
        if self.grey:
            chips = (chips * self.luma).sum(dim=1, keepdim=True)
        return (chips - self.mean) / self.std

    def vector(self, chips: Tensor) -> Tensor:
        """(n, features): what the heads see of scaled chips, before dropout's draw in training."""
        return self.hidden(self.pool(self.backbone(chips)))

    def _answer(self, chips: Tensor) -> Answer:
        return self._heads(self.vector(chips))

    def _heads(self, x: Tensor) -> Answer:
        return Answer(
            self.expression(x) if self.expression is not None else None,
            self.affect(x) if self.affect is not None else None,
            self.auxiliary(x) if self.auxiliary is not None else None,
        )


class ExportGraph(nn.Module):
    """Chips to (probabilities (n, c), affect (n, 2)): temperature, softmax and the circumplex inside the graph; then the
    outputs that the spec names.

    A network without an expression head answers with NaN probabilities.
    """

    def __init__(self, network: Network, spec: ModelSpec) -> None:
        super().__init__()
        self.means: Tensor
        self.temperature: Tensor
        self.network, self.outputs = network, spec.outputs
        self.classes = len(spec.labels)
        means = affect_means(LabelSet(spec.labels))
        if spec.affect == "none":
            means = means * float("nan")
        self.register_buffer("means", torch.from_numpy(means))
        self.register_buffer("temperature", torch.tensor(spec.temperature))

    def forward(self, chips: Tensor) -> tuple[Tensor, ...]:
        if not self.outputs:
            return self._answer(*self.network(chips)[:2])
        full = self.network.full(chips, "maps" in self.outputs)
        return (*self._answer(full.logits, full.affect), *(getattr(full, name) for name in self.outputs))

    def _answer(self, logits: Tensor | None, affect: Tensor | None) -> tuple[Tensor, Tensor]:
        if logits is None:
            assert affect is not None
            probabilities = affect[:, :1].expand(-1, self.classes) * float("nan")
        else:
            probabilities = torch.softmax(logits / self.temperature, dim=1)
        return probabilities, probabilities @ self.means if affect is None else affect.clamp(-1, 1)


def build_network(section: NetworkSection, labels: LabelSet, crop: CropSpec, auxiliary: int = 0) -> Network:
    """A network with fresh (or timm's pretrained) weights; auxiliary: labels of a second expression head.

    Raises ConfigError: an unknown backbone, sizes that do not fit.
    """
    try:
        network = Network(section, labels, crop, auxiliary)
        with torch.inference_mode():
            meta = next(network.parameters()).device
            network.eval()(torch.zeros(2, 3, crop.height, crop.width, device=meta))
        return network.train()
    except (RuntimeError, AssertionError, IndexError) as error:
        why = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"network: {section.backbone} with pool {section.pool} does not take chips of {crop.width}x{crop.height}: {why}"
        ) from error
