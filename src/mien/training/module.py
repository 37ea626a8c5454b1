"""The learner of expressions and affect: a thin wrapper that knows batches and losses; the network knows neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from mien.evaluation.affect import concordance
from mien.evaluation.metrics import macro_f1
from mien.models.network import Answer, ExportGraph, Network
from mien.recipe import Recipe
from mien.training.augment import augment, centre
from mien.training.dataset import Batch
from mien.training.loop import Learner
from mien.training.losses import Loss
from mien.training.mixing import mixed

__all__ = ["ExpressionModule", "Transform"]

#: float32 chips (n, 3, h, w) 0..255 -> the same form: what a user's own augmentation does after the recipe's.
Transform = Callable[[Tensor], Tensor]


class ExpressionModule(Learner):
    """Trains a Network by a Recipe, with or without teachers."""

    recipe: Recipe

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        weights: Tensor,
        teachers: Sequence[ExportGraph] = (),
        transform: Transform | None = None,
    ) -> None:
        super().__init__(network, recipe)
        self.loss = Loss(recipe.loss, recipe.distil, weights)
        self.teachers = [teacher.eval().requires_grad_(False) for teacher in teachers]  # a list: not saved, not trained
        self.transform = transform
        self._seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seed_step(batch_idx)
        chips, targets, affect = batch
        x = augment(chips, self.recipe.augment, self.recipe.crop.border)
        x = self.transform(x) if self.transform is not None else x
        x, targets, affect = mixed(x, targets, affect, self.recipe.augment)
        x = x.contiguous(memory_format=torch.channels_last)
        loss, parts = self.loss(self.network(x), targets, affect, self._taught(x))
        for name, part in parts.items() if len(parts) > 1 else ():
            self.log(f"train/{name}", part.detach(), on_step=False, on_epoch=True, sync_dist=True)
        return self.finite(loss, batch_idx)

    def _taught(self, x: Tensor) -> Tensor | None:
        if not self.teachers:
            return None
        with torch.no_grad():
            return torch.stack([teacher.to(x.device)(x)[0] for teacher in self.teachers]).mean(0)

    def validation_step(self, batch: Batch, _batch_idx: int) -> None:
        chips, targets, affect = batch
        answer = cast(Network, self.kept)(centre(chips, self.recipe.crop.border))
        n = len(chips)
        logits = torch.full((n, targets.shape[1]), torch.nan) if answer.logits is None else answer.logits.float()
        said = torch.full((n, 2), torch.nan) if answer.affect is None else answer.affect.float()
        self._seen.append((logits.to(targets.device), targets, said.to(targets.device), affect))

    def on_validation_epoch_end(self) -> None:
        """Metrics over all held-out rows at once, never averaged over batches; every process judges all rows, so none are
        averaged over processes either."""
        rows = [torch.cat(column) for column in zip(*self._seen, strict=True)]
        self._seen.clear()
        for name, value in held_metrics(self.loss, *rows).items():
            self.log(f"val/{name}", value, prog_bar=name in {"loss", "accuracy", "ccc"}, rank_zero_only=False)


def held_metrics(loss: Loss, logits: Tensor, targets: Tensor, said: Tensor, affect: Tensor) -> dict[str, float]:
    """loss, accuracy, macro_f1, ccc (mean of valence and arousal): those that the rows allow; NaN marks what is unknown."""
    found: dict[str, float] = {}
    parts = Answer(None if logits.isnan().all() else logits, None if said.isnan().all() else said)
    plain = Loss(loss.section, loss.distil, torch.ones_like(loss.class_weights)).to(logits.device)
    found["loss"] = float(plain(parts, targets, affect)[0])
    known = ~targets.isnan().any(dim=1) & ~logits.isnan().any(dim=1)
    if known.any():
        truth, answer = targets[known].argmax(1).cpu().numpy(), logits[known].argmax(1).cpu().numpy()
        found["accuracy"] = float((truth == answer).mean())
        found["macro_f1"] = macro_f1(truth, answer)
    both = ~affect.isnan().any(dim=1) & ~said.isnan().any(dim=1)
    if both.any():
        pairs = said[both].cpu().double().numpy(), affect[both].cpu().double().numpy()
        found["ccc"] = float(
            (concordance(pairs[0][:, 0], pairs[1][:, 0]) + concordance(pairs[0][:, 1], pairs[1][:, 1])) / 2
        )
    return found
