"""What every training shares: the run folder, seeds, averaged weights, optimizer, schedule, Lightning's loop."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from mien.errors import ConfigError, OutputError, TrainingError
from mien.files import whole_file
from mien.recipe import DetectorRecipe, Recipe, load_recipe, recipe_text

__all__ = ["Learner", "open_run", "run_loop"]


class Learner(lightning.LightningModule):
    """A network that is trained by a recipe; `kept` is the averaged one where the recipe asks for an average."""

    def __init__(self, network: nn.Module, recipe: Recipe | DetectorRecipe) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe
        decay = recipe.trainer.ema
        self.averaged = (
            AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
        )

    @property
    def kept(self) -> nn.Module:
        """The network to keep."""
        return self.averaged.module if self.averaged is not None else self.network

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Every random draw of a step depends on seed, epoch and step alone: a resumed run repeats it."""
        torch.manual_seed((self.recipe.seed * 100_003 + self.current_epoch) * 1_000_003 + batch_idx)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)

    def finite(self, loss: Tensor, step: int) -> Tensor:
        """The loss, logged. Raises TrainingError if it is not finite."""
        if not torch.isfinite(loss):
            raise TrainingError(
                f"epoch {self.current_epoch}, step {step}: the loss is {loss.item()}; lower optimizer.lr, "
                "set trainer.clip=1, or train in 32-true"
            )
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

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


def open_run(folder: Path, recipe: Recipe | DetectorRecipe, resume: bool) -> Path:
    """A new run folder with its recipe, or an unfinished one with the same recipe. Raises OutputError, ConfigError."""
    written = folder / "recipe.yaml"
    if resume and not written.is_file():
        raise OutputError(f"{folder}: no run to resume here (no recipe.yaml)")
    if resume and load_recipe(written) != recipe:
        raise ConfigError(f"{written}: the run was started with another recipe; resume it with its own")
    if not resume:
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder}: exists already; choose another folder or pass --resume")
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(written) as part:
            part.write_text(recipe_text(recipe), encoding="utf-8")
    return folder


class _EpochLog(Callback):
    """After each epoch, appends one line to metrics.csv and keeps the state in last.ckpt (whole: the old one stands until
    the new one is written)."""

    def __init__(self, folder: Path) -> None:
        self.path, self.last = folder / "metrics.csv", folder / "last.ckpt"

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        self._log(trainer)
        with whole_file(self.last, overwrite=True) as part:
            trainer.save_checkpoint(part)

    def _log(self, trainer: lightning.Trainer) -> None:
        row = {name: f"{float(value):.5f}" for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": str(trainer.current_epoch), "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}", **row}
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def run_loop(
    learner: Learner,
    train: DataLoader[Any],
    held: DataLoader[Any],
    folder: Path,
    bar: bool,
) -> None:
    """Train to the recipe's last epoch, from the folder's checkpoint if there is one. Raises TrainingError."""
    recipe, last = learner.recipe, folder / "last.ckpt"
    trainer = lightning.Trainer(
        max_epochs=recipe.schedule.epochs,
        precision=recipe.trainer.precision,
        gradient_clip_val=recipe.trainer.clip or None,
        callbacks=[_EpochLog(folder)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="auto",
        devices=1,
    )
    try:
        trainer.fit(learner, train, held, ckpt_path=last if last.is_file() else None, weights_only=False)
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"memory ran out; lower trainer.batch (now {recipe.trainer.batch})") from error
    if trainer.interrupted:
        raise TrainingError(f"{folder}: interrupted; go on with --resume")
