"""The learner of expressions: a thin wrapper that knows batches and losses; the network knows neither."""

from __future__ import annotations

import torch
from torch import Tensor

from mien.models.network import Network
from mien.recipe import Recipe
from mien.training.augment import augment, centre
from mien.training.loop import Learner
from mien.training.losses import soft_cross_entropy

__all__ = ["ExpressionModule"]


class ExpressionModule(Learner):
    """Trains a Network by a Recipe."""

    recipe: Recipe

    def __init__(self, network: Network, recipe: Recipe, weights: Tensor) -> None:
        super().__init__(network, recipe)
        self.register_buffer("class_weights", weights)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        chips, targets = batch
        x = augment(chips, self.recipe.augment, self.recipe.crop.border)
        if self.recipe.augment.mixup:
            x, targets = self._mixed(x, targets)
        x = x.contiguous(memory_format=torch.channels_last)
        loss = soft_cross_entropy(self.network(x), targets, self.class_weights, self.recipe.loss.smoothing)
        return self.finite(loss, batch_idx)

    def _mixed(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        alpha = torch.tensor(self.recipe.augment.mixup)
        share = torch.distributions.Beta(alpha, alpha).sample().to(x.device)
        other = torch.randperm(len(x), device=x.device)
        return share * x + (1 - share) * x[other], share * targets + (1 - share) * targets[other]

    def validation_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> None:
        chips, targets = batch
        logits = self.kept(centre(chips, self.recipe.crop.border))
        ones = torch.ones_like(self.class_weights)
        hit = (logits.argmax(1) == targets.argmax(1)).float().mean()
        self.log("val/loss", soft_cross_entropy(logits, targets, ones), batch_size=len(chips))
        self.log("val/accuracy", hit, batch_size=len(chips), prog_bar=True)
