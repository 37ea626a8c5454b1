"""From a recipe and a data folder to a run folder: chips, checkpoints that resume, weights with their spec.

RUN/recipe.yaml           the resolved recipe
RUN/chips.parquet         the chips it trains on
RUN/last.ckpt             for resuming, after every epoch
RUN/metrics.csv           one line an epoch
RUN/weights.safetensors   the network and its spec; there only when training ended
"""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import lightning
import msgspec
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.nn import functional as F

import mien
from mien.data.manifest import Manifest, Sample
from mien.data.prepare import prepare
from mien.data.sources import read_source
from mien.data.split import hold_out
from mien.errors import ConfigError, DataError, OutputError, TrainingError
from mien.files import whole_file
from mien.labels import LabelSet, label_set
from mien.models.network import Network, build_network
from mien.models.weights import save_weights
from mien.recipe import Recipe, load_recipe, recipe_text
from mien.spec import ModelSpec
from mien.training.augment import centre
from mien.training.dataset import ChipDataset, loader
from mien.training.losses import class_weights
from mien.training.module import ExpressionModule

__all__ = ["fit", "fit_temperature", "training_chips"]

Progress = Callable[[Iterable[Sample]], Iterable[Sample]]


def fit(
    recipe: Recipe,
    data: str | PathLike[str],
    run: str | PathLike[str],
    resume: bool = False,
    threads: int | None = None,
    progress: Progress = lambda rows: rows,
    bar: bool = True,
) -> Path:
    """Train, and return the path of the weights.

    data: the folder of the recipe's sources.  run: the run folder, made here; with `resume` an unfinished one.
    threads: for torch on a CPU; all cores by default.
    Raises OutputError (the run exists), DataError, ConfigError, TrainingError.
    """
    folder = _open_run(Path(run), recipe, resume)
    weights = folder / "weights.safetensors"
    if weights.exists():
        return weights
    torch.set_num_threads(threads or os.cpu_count() or 1)
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    chips = training_chips(recipe, Path(data), folder, progress)
    train, held = _sides(chips, recipe)
    network = build_network(recipe.network, chips.labels, recipe.crop).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sides = ChipDataset(train), ChipDataset(held)
    module = ExpressionModule(network, recipe, class_weights(sides[0].targets, recipe.loss.balance))
    _run_loop(module, sides, recipe, folder, bar)
    best = module.best_network.eval()
    spec = _spec(recipe, chips, fit_temperature(best, sides[1], recipe.crop.border), train.fingerprint())
    save_weights(weights, best, spec)
    return weights


def _open_run(folder: Path, recipe: Recipe, resume: bool) -> Path:
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


def training_chips(recipe: Recipe, data: Path, folder: Path, progress: Progress = lambda rows: rows) -> Manifest:
    """The chips of the recipe's sources, from the run folder if they are there, else prepared and kept there.

    Only the train split, and the validation split where the recipe holds nothing out: rows that judge are not read
    into a run.
    """
    stored = folder / "chips.parquet"
    if stored.is_file():
        return Manifest.read(stored)
    if len(recipe.data.sources) != 1:
        raise ConfigError("data.sources: this version trains on one source")
    manifest = read_source(recipe.data.sources[0], data, recipe.data.rule)
    if manifest.labels != label_set(recipe.data.labels):
        raise ConfigError(f"data.labels: {recipe.data.sources[0]} has the labels {', '.join(manifest.labels)}")
    wanted = {"train"} if recipe.data.validation else {"train", "validation"}
    manifest = manifest.take(np.flatnonzero(np.isin(manifest.splits(), list(wanted))))
    prepared = prepare(manifest, recipe.crop, progress=progress)
    if prepared.missed:
        first = "; ".join(f"{name}: {why}" for name, why in prepared.missed[:3])
        raise DataError(f"{data}: {len(prepared.missed)} rows gave no chip ({first})")
    prepared.chips.write(stored)
    return prepared.chips


def _sides(chips: Manifest, recipe: Recipe) -> tuple[Manifest, Manifest]:
    train = chips.split("train")
    if recipe.data.validation:
        return hold_out(train, recipe.data.validation, recipe.seed)
    return train, chips.split("validation")


class _EpochLog(Callback):
    """Appends one line an epoch to metrics.csv."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        row = {name: f"{float(value):.5f}" for name, value in sorted(trainer.callback_metrics.items())}
        row = {"epoch": str(trainer.current_epoch), "lr": f"{trainer.optimizers[0].param_groups[0]['lr']:.6g}", **row}
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def _run_loop(
    module: ExpressionModule, sides: tuple[ChipDataset, ChipDataset], recipe: Recipe, folder: Path, bar: bool
) -> None:
    last = folder / "last.ckpt"
    keeper = ModelCheckpoint(folder, save_last=True, save_top_k=0, every_n_epochs=1, save_on_train_epoch_end=True)
    trainer = lightning.Trainer(
        max_epochs=recipe.schedule.epochs,
        precision=recipe.trainer.precision,
        gradient_clip_val=recipe.trainer.clip or None,
        callbacks=[keeper, _EpochLog(folder / "metrics.csv")],
        logger=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="auto",
        devices=1,
    )
    train, held = sides
    batches = loader(train, recipe.trainer.batch, recipe.seed), loader(held, 512)
    try:
        trainer.fit(module, *batches, ckpt_path=last if last.is_file() else None, weights_only=False)
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"memory ran out; lower trainer.batch (now {recipe.trainer.batch})") from error
    if trainer.interrupted:
        raise TrainingError(f"{folder}: interrupted; go on with --resume")


def fit_temperature(network: Network, held: ChipDataset, border: int) -> float:
    """The temperature with the least soft cross-entropy on held-out chips (Guo et al. 2017, arXiv:1706.04599)."""
    with torch.inference_mode():
        logits = torch.cat([network(centre(chips, border)) for chips in held.chips.split(512)]).double()
    grid = torch.exp(torch.linspace(-1.6, 1.6, 641, dtype=torch.float64))
    losses = [-(held.targets * F.log_softmax(logits / t, dim=1)).sum(dim=1).mean() for t in grid]
    return round(float(grid[int(torch.stack(losses).argmin())]), 4)


def _spec(recipe: Recipe, chips: Manifest, temperature: float, fingerprint: str) -> ModelSpec:
    labels: LabelSet = chips.labels
    return ModelSpec(
        name=recipe.name,
        labels=labels.names,
        crop=msgspec.structs.replace(recipe.crop, border=0),
        affect=recipe.network.affect,
        temperature=temperature,
        licence="Apache-2.0 as far as the weights are ours; trained on: " + chips.header.licence,
        trained_on=(
            f"{chips.header.source} ({chips.header.rule or 'labels'}), train split, sha256 {fingerprint[:16]}",
        ),
        made_by=f"mien {mien.__version__}, recipe {recipe.name}, seed {recipe.seed}, torch {torch.__version__}, {platform.machine()}",
        network=msgspec.to_builtins(recipe.network),
    )
