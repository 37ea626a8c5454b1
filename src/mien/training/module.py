"""The learner of expressions and affect: a thin wrapper that knows batches and losses; the network knows neither."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.errors import ConfigError
from mien.evaluation.affect import concordance, rmse
from mien.evaluation.metrics import macro_auroc, macro_f1
from mien.models.network import Answer, ExportGraph, Network
from mien.recipe import Recipe
from mien.sections import DistilSection, LossSection
from mien.training.augment import augment, centre
from mien.training.dataset import Batch
from mien.training.loop import Learner
from mien.training.losses import Loss, soft_cross_entropy
from mien.training.mixing import mixed, unmade
from mien.training.rounding import rounded_answer
from mien.training.transforms import Transform

__all__ = ["ExpressionModule", "check_sides"]


class ExpressionModule(Learner):
    """Trains a Network by a Recipe, with or without teachers.

    judge: the loss of held-out rows, val/loss, where several learners are compared by it; else the recipe's own.
    """

    recipe: Recipe

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        weights: Tensor,
        teachers: Sequence[ExportGraph] = (),
        transform: Transform | None = None,
        auxiliary: Tensor | None = None,
        judge: LossSection | None = None,
    ) -> None:
        super().__init__(network, recipe)
        self.judge = judge or recipe.loss
        self.loss = Loss(recipe.loss, recipe.distil, weights, auxiliary)
        self.teachers = [_asked(teacher) for teacher in teachers]  # a list: not saved, not trained
        self.transform = transform
        self._seen: list[tuple[Tensor, ...]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seed_step(batch_idx)
        chips, targets, affect, told, others = batch
        x = augment(chips, self.recipe.augment, self.recipe.crop.border)
        x = self.transform(x) if self.transform is not None else x
        widths = targets.shape[1], told.shape[1], others.shape[1]
        classes, second = widths[0], len(self.loss.auxiliary_weights)
        share = torch.tensor(
            [classes] * (classes + widths[1]) + [second] * widths[2] + [math.inf], device=targets.device
        )
        every = torch.cat(
            [targets, told, others, torch.ones_like(targets[:, :1])], dim=1
        )  # the last: a face; 1 / inf is none
        x, every, affect = unmade(x, every, affect, share, self.recipe.augment)
        x, every, affect = mixed(x, every, affect, self.recipe.augment)
        targets, told, others, face = every.split((*widths, 1), dim=1)
        taught = self._taught(x, told.unflatten(1, (-1, classes)) if widths[1] else None, face)
        answer = self._answer(self._shown(x).contiguous(memory_format=torch.channels_last))
        loss, parts = self.loss(answer, targets, affect, taught, _second(others, second) if second else None)
        for name, part in parts.items() if len(parts) > 1 else ():
            self.log(f"train/{name}", part.detach(), on_step=False, on_epoch=True, sync_dist=True)
        return self.finite(loss, batch_idx)

    def _shown(self, x: Tensor) -> Tensor:
        """Chips at the side that the schedule has for this epoch."""
        size = _size(x.shape[-2:], self.recipe.schedule.side(self.current_epoch))
        if size == list(x.shape[-2:]):
            return x
        return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)

    def _answer(self, x: Tensor) -> Answer:
        network, section = cast(Network, self.network), self.recipe.quantize
        answer: Answer = rounded_answer(network, x, section) if section.bits else network(x)
        return answer

    def _taught(self, x: Tensor, told: Tensor | None, face: Tensor) -> Tensor | None:
        """(n, c): the mean over all teachers that know a row, NaN where none does; None without teachers.

        told: (n, t, c).  face: (n, 1), the share of a chip that was not unmade: of the rest teachers say that every class is alike.
        """
        answers = [] if told is None else list(told.unbind(1))
        seen = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            said = [teacher.to(x.device)(seen)[0] for teacher in self.teachers]
        answers += [face * one + (1 - face) / one.shape[1] for one in said]
        return torch.stack(answers).nanmean(0) if answers else None

    def validation_step(self, batch: Batch, _batch_idx: int) -> None:
        chips, targets, affect, _, others = batch
        answer = cast(Network, self.kept)(centre(chips, self.recipe.crop.border))
        n = len(chips)
        logits = torch.full((n, targets.shape[1]), torch.nan) if answer.logits is None else answer.logits.float()
        said = torch.full((n, 2), torch.nan) if answer.affect is None else answer.affect.float()
        more = () if answer.auxiliary is None else (answer.auxiliary.float(), others)
        self._seen.append((logits.to(targets.device), targets, said.to(targets.device), affect, *more))

    def on_validation_epoch_end(self) -> None:
        """Metrics over all held-out rows at once, never averaged over batches; every process judges all rows, so none are
        averaged over processes either."""
        rows = [torch.cat(column) for column in zip(*self._seen, strict=True)]
        self._seen.clear()
        found = held_metrics(self.judge, *rows[:4])
        if len(rows) > 4:
            found |= _second_metrics(self.judge, *rows[4:])
        for name, value in found.items():
            self.log(f"val/{name}", value, prog_bar=name in {"loss", "accuracy", "ccc"}, rank_zero_only=False)


def _asked(teacher: ExportGraph) -> ExportGraph:
    """Ready to answer: no gradients, and laid out in memory as the student is."""
    teacher.eval().requires_grad_(False)
    return teacher.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def _second(others: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
    """The second head's targets, and the mean over the teachers that know a row."""
    told = others[:, classes:]
    return others[:, :classes], told.unflatten(1, (-1, classes)).nanmean(1) if told.shape[1] else None


def _second_metrics(judge: LossSection, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """The second head's loss and accuracy over the labelled rows; nothing where there are none."""
    known = ~targets.isnan().any(dim=1)
    if not known.any():
        return {}
    logits, targets = logits[known], targets[known]
    even = torch.ones(targets.shape[1], device=targets.device)
    return {
        "auxiliary": float(soft_cross_entropy(logits, targets, even, judge.smoothing)),
        "auxiliary_accuracy": float((logits.argmax(1) == targets.argmax(1)).float().mean()),
    }


def _size(whole: Sequence[int], share: float) -> list[int]:
    return [max(1, round(share * side)) for side in whole]


def check_sides(network: Network, recipe: Recipe) -> None:
    """Raises ConfigError: a size of the schedule that the network does not take."""
    for share in recipe.schedule.sides:
        height, width = _size((recipe.crop.height, recipe.crop.width), share)
        try:
            with torch.inference_mode():
                network.eval()(torch.zeros(2, 3, height, width))
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"schedule.sides: {share:g} shows chips of {width}x{height}, which {recipe.network.backbone} does not take; "
                "give larger ones or none (--set 'schedule.sides=[]')"
            ) from error
        finally:
            network.train()


def held_metrics(judge: LossSection, logits: Tensor, targets: Tensor, said: Tensor, affect: Tensor) -> dict[str, float]:
    """loss (judge's, no class weighing more than another), accuracy, macro_f1, auroc, ccc and rmse (means of valence and arousal): those that the rows allow; NaN marks what is unknown."""
    found: dict[str, float] = {}
    parts = Answer(None if logits.isnan().all() else logits, None if said.isnan().all() else said)
    plain = Loss(judge, DistilSection(), torch.ones(targets.shape[1])).to(logits.device)
    found["loss"] = float(plain(parts, targets, affect)[0])
    known = ~targets.isnan().any(dim=1) & ~logits.isnan().any(dim=1)
    if known.any():
        truth, answer = targets[known].argmax(1).cpu().numpy(), logits[known].argmax(1).cpu().numpy()
        found["accuracy"] = float((truth == answer).mean())
        found["macro_f1"] = macro_f1(truth, answer)
        found["auroc"] = macro_auroc(truth, torch.softmax(logits[known].double(), 1).cpu().numpy())
    both = ~affect.isnan().any(dim=1) & ~said.isnan().any(dim=1)
    if both.any():
        pairs = said[both].cpu().double().numpy(), affect[both].cpu().double().numpy()
        for name, measure in (("ccc", concordance), ("rmse", rmse)):
            found[name] = float(np.mean([measure(pairs[0][:, i], pairs[1][:, i]) for i in (0, 1)]))
    return found
