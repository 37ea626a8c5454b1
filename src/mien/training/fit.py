"""From a recipe and a data folder to a run folder: chips, checkpoints that resume, weights with their spec.

RUN/recipe.yaml           the resolved recipe
RUN/environment.json      versions, machine, and the hashes of what training started from
RUN/chips.parquet         the chips it trains on
RUN/last.ckpt             for resuming, after every epoch
RUN/metrics.csv           one line an epoch; curves.png shows them
RUN/weights.safetensors   the network and its spec; there only when training ended
"""

from __future__ import annotations

import csv
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, cast

import lightning
import msgspec
import numpy as np
import torch
from torch.nn import functional as F

import mien
from mien.data.manifest import Manifest, Sample, is_manifest
from mien.data.prepare import prepare
from mien.data.sources import read_source
from mien.data.split import hold_out, project
from mien.errors import ConfigError, DataError
from mien.files import whole_file
from mien.labels import LabelSet, label_set
from mien.models.network import ExportGraph, Network, build_network
from mien.models.weights import load_weights, save_weights, start_from, weights_file
from mien.recipe import Recipe
from mien.report.curves import write_curves
from mien.runtime.detect import open_detector
from mien.spec import CropSpec, ModelSpec
from mien.training.augment import centre
from mien.training.dataset import ChipDataset, EpochSampler, loader
from mien.training.loop import Freezer, open_run, run_loop, write_environment
from mien.training.losses import class_weights
from mien.training.module import ExpressionModule, Transform

__all__ = ["fit", "fit_temperature", "training_chips"]

Progress = Callable[[Iterable[Sample]], Iterable[Sample]]
_WAIT = 3600
#: Fewer held-out rows than this say too little of a temperature.
_ENOUGH = 100
_IN_MEMORY = 4 << 30


def fit(
    recipe: Recipe,
    data: str | PathLike[str],
    run: str | PathLike[str],
    resume: bool = False,
    threads: int | None = None,
    progress: Progress = lambda rows: rows,
    bar: bool = True,
    init: str | PathLike[str] | None = None,
    teachers: Sequence[str | PathLike[str]] = (),
    transform: Transform | None = None,
    loggers: Sequence[Any] = (),
) -> Path:
    """Train, and return the path of the weights.

    data: the folder of the recipe's source, or a manifest's file, which then stands for the source.
    run: the run folder, made here; with `resume` an unfinished one.
    threads: for torch on a CPU; all cores by default.
    init: a run or weights file to start from: every layer of the same name and shape is taken over.
    teachers: runs or weights files to learn from besides the labels (see the section `distil`).
    transform: your own augmentation, on float32 batches (n, 3, h, w) 0..255, after the recipe's: torchvision's transforms
        work as they are.  loggers: Lightning loggers besides metrics.csv.
    Raises OutputError (the run exists), DataError, ConfigError, ModelError, TrainingError.
    """
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    folder = open_run(Path(run), recipe, resume, rank)
    weights = folder / "weights.safetensors"
    if weights.exists():
        return weights
    torch.set_num_threads(threads or os.cpu_count() or 1)
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    if rank:
        _wait_for(folder / "chips.parquet")
    chips = training_chips(recipe, Path(data), folder, progress)
    train, held = _sides(chips, recipe)
    network = build_network(recipe.network, chips.labels, recipe.crop).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    started = {"init": start_from(network, init)} if init is not None else {}
    taught = [_teacher(path, chips.labels, recipe) for path in teachers]
    if not rank:
        write_environment(folder, {**started, "teachers": [origin for _, origin in taught]})
    sides = _dataset(train, folder / "train.npy"), _dataset(held, folder / "held.npy")
    _check_rows(sides[0], recipe)
    balance = class_weights(sides[0].targets, recipe.loss.balance, recipe.loss.effective)
    learner = ExpressionModule(network, recipe, balance, [graph for graph, _ in taught], transform)
    sampler = EpochSampler(sides[0].targets, recipe.data, recipe.seed, learner.place)
    batches = loader(sides[0], recipe.trainer.batch, sampler), loader(sides[1], 512)
    run_loop(learner, *batches, folder, bar, [Freezer(recipe.network)], loggers)
    if rank:
        return weights
    best = cast(Network, learner.kept.eval())
    temperature = fit_temperature(best, sides[1], recipe.crop.border) if recipe.network.expression else 1.0
    write_curves(folder / "metrics.csv", folder / "curves.png", recipe.name)
    save_weights(weights, best, _spec(recipe, chips, temperature, train.fingerprint()))
    return weights


def _dataset(chips: Manifest, cache: Path) -> ChipDataset:
    """In memory if the decoded chips take less than _IN_MEMORY bytes, else mapped from a file in the run folder."""
    crop = chips.header.crop
    assert crop is not None
    pixels = (crop.width + 2 * crop.border) * (crop.height + 2 * crop.border) * (3 if crop.colour == "rgb" else 1)
    return ChipDataset(chips, cache if pixels * len(chips) > _IN_MEMORY else None)


def _wait_for(path: Path) -> None:
    """Other processes of a distributed run wait until the first one has prepared the chips."""
    deadline = time.monotonic() + _WAIT
    while not path.is_file():
        if time.monotonic() > deadline:
            raise DataError(f"{path}: the first process has not prepared it within an hour")
        time.sleep(0.2)


def _teacher(path: str | PathLike[str], labels: LabelSet, recipe: Recipe) -> tuple[ExportGraph, dict[str, str]]:
    file, origin = weights_file(path)
    network, spec = load_weights(file)
    if not spec.expression:
        raise ConfigError(f"--teacher {path}: answers valence and arousal alone; a teacher needs an expression head")
    if LabelSet(spec.labels) != labels or _plain(spec.crop) != _plain(recipe.crop):
        raise ConfigError(
            f"--teacher {path}: answers {', '.join(spec.labels)} on {spec.crop.width}x{spec.crop.height} chips; the recipe "
            f"has {', '.join(labels)} on {recipe.crop.width}x{recipe.crop.height}, framed {_plain(recipe.crop)}"
        )
    return ExportGraph(network, spec), origin


def _plain(crop: CropSpec) -> CropSpec:
    return msgspec.structs.replace(crop, border=0)


def _check_rows(train: ChipDataset, recipe: Recipe) -> None:
    if len(train) < recipe.trainer.batch and recipe.trainer.batch > 1 and len(train) < 2:
        raise DataError(f"{recipe.name}: {len(train)} rows to train on")
    if recipe.network.affect == "trained" and bool(train.affect.isnan().any(dim=1).all()):
        raise DataError(
            f"{recipe.name}: network.affect is 'trained' but no row has valence and arousal; use 'circumplex' or other data"
        )
    if recipe.network.expression and bool(train.targets.isnan().any(dim=1).all()):
        raise DataError(f"{recipe.name}: no row has a label; set network.expression: false for affect alone")


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
    wanted_labels = label_set(recipe.data.labels)
    strange = [name for name in wanted_labels if name not in manifest.labels]
    if strange:
        raise ConfigError(
            f"data.labels: {manifest.header.source} has no {', '.join(strange)}; it has {', '.join(manifest.labels)}"
        )
    if manifest.labels != wanted_labels:
        manifest = project(manifest, wanted_labels.names)
    wanted = {"train"} if recipe.data.validation else {"train", "validation"}
    manifest = manifest.take(np.flatnonzero(np.isin(manifest.splits(), list(wanted))))
    if manifest.header.crop is not None:
        if manifest.header.crop != recipe.crop:
            raise ConfigError(f"crop: {data} holds chips cut as {manifest.header.crop}; the recipe says {recipe.crop}")
        manifest.write(stored)
        return manifest
    finder = None if manifest.header.framing is not None else open_detector("auto", recipe.crop)
    prepared = prepare(manifest, recipe.crop, finder, progress)
    if len(prepared.missed) > 0.1 * len(manifest):
        first = "; ".join(f"{name}: {why}" for name, why in prepared.missed[:3])
        raise DataError(
            f"{data}: {len(prepared.missed)} of {len(manifest)} rows gave no chip ({first}); see `mien data prepare`"
        )
    if prepared.missed:
        with (
            whole_file(folder / "missed.csv", overwrite=True) as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([("id", "reason"), *prepared.missed])
        print(
            f"{len(prepared.missed):,} of {len(manifest):,} rows gave no chip; each with its reason: {folder / 'missed.csv'}"
        )
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
        answers = [network(centre(chips, border)).logits for chips in held.chips.split(512)]
    logits = torch.cat([logits for logits in answers if logits is not None]).double()
    grid = torch.exp(torch.linspace(-1.6, 1.6, 641, dtype=torch.float64))
    sure = held.targets.amax(dim=1) > 0.5
    if int(sure.sum()) < _ENOUGH:
        return 1.0
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
        expression=recipe.network.expression,
        temperature=temperature,
        licence="Apache-2.0 as far as the weights are ours; trained on: " + chips.header.licence,
        trained_on=(
            f"{chips.header.source} ({chips.header.rule or 'labels'}), train split, sha256 {fingerprint[:16]}",
        ),
        made_by=f"mien {mien.__version__}, recipe {recipe.name}, seed {recipe.seed}, torch {torch.__version__}, {platform.machine()}",
        network=msgspec.to_builtins(recipe.network),
    )
