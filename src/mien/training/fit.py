"""From a recipe and a data folder to a run folder: chips, checkpoints that resume, weights with their spec.

RUN/recipe.yaml           the resolved recipe
RUN/chips.parquet         the chips it trains on
RUN/last.ckpt             for resuming, after every epoch
RUN/metrics.csv           one line an epoch
RUN/weights.safetensors   the network and its spec; there only when training ended
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import cast

import lightning
import msgspec
import numpy as np
import torch
from torch.nn import functional as F

import mien
from mien.data.manifest import Manifest, Sample, is_manifest
from mien.data.prepare import prepare
from mien.data.sources import read_source
from mien.data.split import hold_out
from mien.errors import ConfigError, DataError
from mien.labels import LabelSet, label_set
from mien.models.network import Network, build_network
from mien.models.weights import save_weights
from mien.recipe import Recipe
from mien.spec import ModelSpec
from mien.training.augment import centre
from mien.training.dataset import ChipDataset, loader
from mien.training.loop import open_run, run_loop
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

    data: the folder of the recipe's source, or a manifest's file, which then stands for the source.  run: the run folder, made here; with `resume` an unfinished one.
    threads: for torch on a CPU; all cores by default.
    Raises OutputError (the run exists), DataError, ConfigError, TrainingError.
    """
    folder = open_run(Path(run), recipe, resume)
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
    batches = loader(sides[0], recipe.trainer.batch, recipe.seed), loader(sides[1], 512)
    run_loop(module, *batches, folder, bar)
    best = cast(Network, module.kept.eval())
    spec = _spec(recipe, chips, fit_temperature(best, sides[1], recipe.crop.border), train.fingerprint())
    save_weights(weights, best, spec)
    return weights


def training_chips(recipe: Recipe, data: Path, folder: Path, progress: Progress = lambda rows: rows) -> Manifest:
    """The chips of the recipe's sources, from the run folder if they are there, else prepared and kept there.

    Only the train split, and the validation split where the recipe holds nothing out: rows that judge are not read
    into a run.
    """
    stored = folder / "chips.parquet"
    if stored.is_file():
        return Manifest.read(stored)
    if is_manifest(data):
        manifest = Manifest.read(data)
    elif len(recipe.data.sources) != 1:
        raise ConfigError("data.sources: this version reads one source; merge several with `mien data merge`")
    else:
        manifest = read_source(recipe.data.sources[0], data, recipe.data.rule)
    if manifest.labels != label_set(recipe.data.labels):
        raise ConfigError(f"data.labels: {manifest.header.source} has the labels {', '.join(manifest.labels)}")
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


def fit_temperature(network: Network, held: ChipDataset, border: int) -> float:
    """The temperature with the least cross-entropy on held-out chips (Guo et al. 2017, arXiv:1706.04599), against the
    label that most raters gave (rows where no label has more than half are left out): so that `confidence` is the chance
    of agreeing with the majority, not the share of its votes."""
    with torch.inference_mode():
        logits = torch.cat([network(centre(chips, border)) for chips in held.chips.split(512)]).double()
    grid = torch.exp(torch.linspace(-1.6, 1.6, 641, dtype=torch.float64))
    sure = held.targets.amax(dim=1) > 0.5
    sure = sure if sure.any() else torch.ones_like(sure)
    wanted = held.targets[sure].argmax(dim=1)
    losses = [F.cross_entropy(logits[sure] / t, wanted) for t in grid]
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
