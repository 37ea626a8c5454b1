"""The Lightning module: a thin wrapper that knows batches, losses and schedules; the network knows none of them."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mien.errors import TrainingError
from mien.models.network import Network
from mien.recipe import Recipe
from mien.training.augment import augment, centre
from mien.training.losses import soft_cross_entropy

__all__ = ["ExpressionModule"]


class ExpressionModule(lightning.LightningModule):
    """Trains a Network by a Recipe; `best_network` is the averaged one where the recipe asks for an average."""

    def __init__(self, network: Network, recipe: Recipe, weights: Tensor) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe
        self.register_buffer("class_weights", weights)
        decay = recipe.trainer.ema
        self.averaged = (
            AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
        )

    @property
    def best_network(self) -> Network:
        """The network to keep."""
        return self.averaged.module if self.averaged is not None else self.network  # type: ignore[return-value]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Every random draw of a step depends on seed, epoch and step alone: a resumed run repeats it."""
        torch.manual_seed((self.recipe.seed * 100_003 + self.current_epoch) * 1_000_003 + batch_idx)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        chips, targets = batch
        x = augment(chips, self.recipe.augment, self.recipe.crop.border)
        if self.recipe.augment.mixup:
            x, targets = self._mixed(x, targets)
        x = x.contiguous(memory_format=torch.channels_last)
        loss = soft_cross_entropy(self.network(x), targets, self.class_weights, self.recipe.loss.smoothing)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"epoch {self.current_epoch}, step {batch_idx}: the loss is {loss.item()}; lower optimizer.lr, "
                "set trainer.clip=1, or train in 32-true"
            )
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def _mixed(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        alpha = torch.tensor(self.recipe.augment.mixup)
        share = torch.distributions.Beta(alpha, alpha).sample().to(x.device)
        other = torch.randperm(len(x), device=x.device)
        return share * x + (1 - share) * x[other], share * targets + (1 - share) * targets[other]

    def on_train_batch_end(self, *_: Any) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def validation_step(self, batch: tuple[Tensor, Tensor], _batch_idx: int) -> None:
        chips, targets = batch
        logits = self.best_network(centre(chips, self.recipe.crop.border))
        ones = torch.ones_like(self.class_weights)
        hit = (logits.argmax(1) == targets.argmax(1)).float().mean()
        self.log("val/loss", soft_cross_entropy(logits, targets, ones), batch_size=len(chips))
        self.log("val/accuracy", hit, batch_size=len(chips), prog_bar=True)

    def configure_optimizers(self) -> Any:
        chosen = self.recipe.optimizer
        groups = _groups(self.network, chosen.decay)
        if chosen.name == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                groups, chosen.lr, chosen.momentum, nesterov=chosen.momentum > 0
            )
        else:
            optimizer = torch.optim.AdamW(groups, chosen.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._rate(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int, steps: int) -> float:
        """The share of the largest learning rate at a step."""
        schedule = self.recipe.schedule
        warm = steps * schedule.warmup / schedule.epochs
        if step < warm:
            return (step + 1) / (warm + 1)
        if schedule.name == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, steps - warm))))


def _groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases and norms."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
