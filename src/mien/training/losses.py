"""Losses against target distributions and affect; rows without the one or the other count nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.models.network import Answer
from mien.sections import DistilSection, LossSection

__all__ = ["Loss", "affect_loss", "ccc_loss", "class_weights", "distilled", "focal_loss", "soft_cross_entropy"]


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of -sum_c weights_c q_c log softmax(logits)_c, with q = (1 - s) target + s / c.

    logits, targets: (n, c).  weights: (c,).  smoothing s: in [0, 1).
    """
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    return -(weights * targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def focal_loss(logits: Tensor, targets: Tensor, weights: Tensor, focus: float, smoothing: float = 0.0) -> Tensor:
    """As soft_cross_entropy, each term times (1 - p_c)**focus (Lin et al. 2017, arXiv:1708.02002)."""
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    log = F.log_softmax(logits, dim=1)
    left = (1 - log.exp()).clamp(min=1e-6)  # at 0 a power below 1 has no gradient
    return -(weights * targets * left**focus * log).sum(dim=1).mean()


def ccc_loss(answer: Tensor, wanted: Tensor) -> Tensor:
    """1 - the mean over valence and arousal of Lin's concordance over the batch (population variance), (n, 2) each.

    Lin 1989, Biometrics 45(1). A batch of one row has no variance: its loss is the squared error.
    """
    if len(answer) < 2:
        return F.mse_loss(answer, wanted)
    a, b = answer - answer.mean(0), wanted - wanted.mean(0)
    spread = (a**2).mean(0) + (b**2).mean(0) + (answer.mean(0) - wanted.mean(0)) ** 2
    return 1 - (2 * (a * b).mean(0) / spread.clamp(min=1e-8)).mean()


def affect_loss(answer: Tensor, wanted: Tensor, kind: str) -> Tensor:
    """'mse', 'ccc' or their sum over (n, 2)."""
    parts = {"mse": lambda: F.mse_loss(answer, wanted), "ccc": lambda: ccc_loss(answer, wanted)}
    return torch.stack([parts[name]() for name in kind.split("+")]).sum()


def distilled(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of softened student and teacher probabilities, times temperature squared (Hinton et al. 2015).

    logits, teacher: (n, c); teacher holds probabilities.
    """
    soft = F.softmax(torch.log(teacher.clamp(min=1e-8)) / temperature, dim=1)
    return -(soft * F.log_softmax(logits / temperature, dim=1)).sum(dim=1).mean() * temperature**2


class Loss(nn.Module):
    """The loss of a recipe. `parts` are logged by name; with `uncertainty` the two weights are learned."""

    def __init__(
        self, section: LossSection, distil: DistilSection, weights: Tensor, auxiliary: Tensor | None = None
    ) -> None:
        super().__init__()
        self.section, self.distil = section, distil
        self.class_weights: Tensor
        self.auxiliary_weights: Tensor
        self.register_buffer("class_weights", weights)
        self.register_buffer("auxiliary_weights", torch.ones(0) if auxiliary is None else auxiliary, persistent=False)
        self.log_variance = nn.Parameter(torch.zeros(2)) if section.uncertainty else None

    def forward(
        self,
        answer: Answer,
        targets: Tensor,
        affect: Tensor,
        teacher: Tensor | None = None,
        auxiliary: tuple[Tensor, Tensor | None] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """answer for n rows; targets (n, c) and affect (n, 2), NaN where unknown; teacher (n, c) probabilities, NaN
        where no teacher knows the row; auxiliary: targets (n, a) and teacher of the second head."""
        parts: dict[str, Tensor] = {}
        if answer.logits is not None:
            parts["expression"] = self._expression(answer.logits, targets, teacher, self.class_weights)
        if answer.auxiliary is not None and auxiliary is not None:
            parts["auxiliary"] = self._expression(answer.auxiliary, *auxiliary, self.auxiliary_weights)
        if answer.affect is not None:
            known = ~torch.isnan(affect).any(dim=1)
            parts["affect"] = (
                affect_loss(answer.affect[known], affect[known], self.section.affect)
                if known.any()
                else answer.affect.sum() * 0
            )
        return self._sum(parts), parts

    def _expression(self, logits: Tensor, targets: Tensor, teacher: Tensor | None, weights: Tensor) -> Tensor:
        """Rows that no teacher knows have their labels alone, with the full weight."""
        if teacher is None:
            return self._shared(logits, targets, None, weights)
        told = ~torch.isnan(teacher).any(dim=1)
        if told.all():
            return self._shared(logits, targets, teacher, weights)
        parts = (told, teacher[told]), (~told, None)
        sums = [self._shared(logits[rows], targets[rows], by, weights) * rows.sum() for rows, by in parts if rows.any()]
        return torch.stack(sums).sum() / len(logits)

    def _shared(self, logits: Tensor, targets: Tensor, teacher: Tensor | None, weights: Tensor) -> Tensor:
        known = ~torch.isnan(targets).any(dim=1)
        total = logits.sum() * 0
        share = self.distil.weight if teacher is not None else 0.0
        if share < 1 and known.any():
            total = total + (1 - share) * self._labelled(logits[known], targets[known], weights)
        if teacher is not None:
            total = total + share * distilled(logits, teacher, self.distil.temperature)
        return total

    def _labelled(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        section = self.section
        if section.expression == "focal":
            return focal_loss(logits, targets, weights, section.focus, section.smoothing)
        return soft_cross_entropy(logits, targets, weights, section.smoothing)

    def _sum(self, parts: dict[str, Tensor]) -> Tensor:
        two = "expression" in parts and "affect" in parts
        weights = {
            "expression": 1.0,
            "affect": self.section.weight if two else 1.0,
            "auxiliary": self.section.auxiliary,
        }
        if self.log_variance is None or not two:
            return torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        both = torch.stack([parts["expression"], parts["affect"]])
        learned = (both * torch.exp(-self.log_variance) + self.log_variance / 2).sum()
        return learned + weights["auxiliary"] * parts["auxiliary"] if "auxiliary" in parts else learned


def class_weights(targets: Tensor, power: float, effective: float = 0.0) -> Tensor:
    """(c,) weights, inverse class frequency to a power, scaled so that their mean over the rows is 1.

    effective: if not 0, the inverse effective number of rows with this base instead (Cui et al. 2019, arXiv:1901.05555).
    targets: (n, c); rows of NaN are unlabelled. A class without rows gets weight 0; without any label all weigh 1.
    """
    known = targets[~torch.isnan(targets).any(dim=1)]
    if not len(known):
        return torch.ones(targets.shape[1])
    share = known.mean(dim=0)
    if effective:
        raw = torch.where(share > 0, (1 - effective) / (1 - effective ** (share * len(known)).clamp(min=1e-3)), 0.0)
    else:
        raw = torch.where(share > 0, share.clamp(min=1e-9) ** -power, 0.0)
    return raw / (raw * share).sum()
