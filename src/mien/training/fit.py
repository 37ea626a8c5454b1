"""From a recipe and a data folder to a run folder: chips, checkpoints that resume, weights with their spec.

RUN/recipe.yaml           the resolved recipe
RUN/environment.json      versions, machine, and the hashes of what training started from
RUN/chips.parquet         the chips it trains on
RUN/last.ckpt             for resuming, after every epoch
RUN/metrics.csv           one line an epoch; curves.png shows them
RUN/predictions.parquet   what the network says of the held-out rows
RUN/report.html           recipe, curves, held-out figures, what is taken for what
RUN/auxiliary.parquet     the labels of `data.auxiliary`
RUN/auxiliary.safetensors the network with the second head in place of the first, and its spec
RUN/weights.safetensors   the network and its spec; there only when training ended
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import lightning
import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import mien
from mien.data.manifest import Manifest
from mien.errors import ConfigError, DataError, MienError
from mien.labels import LabelSet, affect_means, label_set
from mien.models.network import Network, build_network
from mien.models.weights import save_weights, start_from
from mien.recipe import Recipe
from mien.spec import ModelSpec
from mien.training.augment import centre
from mien.training.auxiliary import Auxiliary, second_labels
from mien.training.chips import Progress, check_sources, training_chips, two_sides
from mien.training.dataset import Batch, ChipDataset, EpochSampler, check_rows, loader
from mien.training.ending import held_temperature, write_ending
from mien.training.folder import open_run, rank_here, write_environment
from mien.training.loop import Freezer, run_loop
from mien.training.losses import class_weights
from mien.training.module import ExpressionModule, check_sides
from mien.training.origins import Origins, forget, learned_rows, lineage, origins, remembered
from mien.training.teachers import read_teachers
from mien.training.transforms import Transform, as_batches

__all__ = ["fit"]

_WAIT = 3600
_IN_MEMORY = 4 << 30


def fit(
    recipe: Recipe,
    data: str | PathLike[str] | Sequence[str | PathLike[str]],
    run: str | PathLike[str],
    resume: bool = False,
    threads: int | None = None,
    progress: Progress = lambda rows: rows,
    bar: bool = True,
    init: str | PathLike[str] | None = None,
    teachers: Sequence[str | PathLike[str]] = (),
    transform: Any = None,
    loggers: Sequence[Any] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train, and return the path of the weights.

    data: the folder of the recipe's source (one for each of several, in their order), or a manifest's file, which then
        stands for the sources; then, if it is another, the place of `data.auxiliary`.
    run: the run folder, made here; with `resume` an unfinished one, which remembers `init` and `teachers`.
    threads: for torch on a CPU; by default all cores that this process may use, or OMP_NUM_THREADS.
    init: a run, a weights file or a model (its file or name) to start from: every layer of the same name and shape is taken over, a narrower residual network is widened (see mien.models.weights.start_from).
    teachers: runs, weights files, models or tables of predictions to learn from besides the labels (see the section `distil`).
    transform: your own augmentation after the recipe's: torchvision's or albumentations' transforms on uint8 chips, or a
        function of float32 batches (n, 3, h, w) 0..255 (see mien.training.transforms).
    loggers: Lightning loggers besides metrics.csv.  tell: gets a line for what is worth knowing, such as an epoch's end.
    Raises OutputError (the run exists), DataError, ConfigError, ModelError, TrainingError.
    """
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"recipe: of type {type(recipe).__name__}; give mien.recipe.load_recipe('drawn'), say")
    if isinstance(data, Manifest):
        raise ConfigError("data: give the file of the manifest; manifest.write('mine.parquet') makes it")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads: {threads!r}: give a whole number from 1 on, or None")
    rank = rank_here(recipe.trainer)
    places = [Path(place) for place in ([data] if isinstance(data, str | PathLike) else data)]
    places, beside = check_sources(recipe, places, (Path(run) / "auxiliary.parquet").is_file())
    weights = Path(run) / "weights.safetensors"
    with open_run(Path(run), recipe, resume, rank) as folder:
        if weights.exists():
            return weights
        if not rank and not (folder / "chips.parquet").is_file():
            # what cannot be built, or whose weights cannot be fetched, fails before chips are cut
            build_network(recipe.network, label_set(recipe.data.labels), recipe.crop)
        torch.set_num_threads(threads or torch.get_num_threads())
        lightning.seed_everything(recipe.seed, workers=True, verbose=False)
        try:
            start = remembered(folder, init, teachers) if resume else origins(init, teachers)
            if rank:
                _wait_for(folder / ("chips.parquet" if recipe.data.auxiliary == "none" else "auxiliary.parquet"))
            else:
                write_environment(folder, start.facts)
            chips = training_chips(recipe, places, folder, progress, tell)
            second = second_labels(recipe, beside, folder, chips.ids, tell)
            ready = _make_ready(recipe, chips, folder, start, as_batches(transform), tell, second)
        except MienError:
            if not resume and not rank:
                forget(folder)
            raise
        if not rank:
            write_environment(folder, ready.facts)
            _say_affect(recipe, chips.labels, tell)
        learner = ready.learner
        run_loop(learner, ready.batches, loader(ready.held, 512), folder, bar, [Freezer(recipe.network)], loggers, tell)
        if not rank:
            _end(recipe, chips, ready, second, folder)
    return weights


def _end(recipe: Recipe, chips: Manifest, ready: _Ready, second: Auxiliary | None, folder: Path) -> None:
    """The run's last files; weights.safetensors, which says that it ended, at the very end."""
    best = cast(Network, ready.learner.kept.eval())
    if second is not None:
        _write_second(recipe, best, chips, second, ready, folder)
    temperature = held_temperature(best, ready.held, recipe.crop.border) if recipe.network.expression else 1.0
    spec = _spec(recipe, chips, temperature, ready, second)
    write_ending(folder, recipe, best, spec, ready.held, ready.rows)
    save_weights(folder / "weights.safetensors", best, spec)


def _write_second(
    recipe: Recipe, network: Network, chips: Manifest, second: Auxiliary, ready: _Ready, folder: Path
) -> None:
    """auxiliary.safetensors: a network that answers the second head's labels. Takes that head from the network."""
    first, other = network.expression, network.auxiliary
    network.auxiliary, network.expression, network.classes = None, other, len(second.labels)
    temperature = held_temperature(network, ready.held, recipe.crop.border, ready.held.auxiliary)
    spec = _spec(recipe, chips, temperature, ready, second)
    affect = "none" if spec.affect == "circumplex" and np.isnan(affect_means(second.labels)).all() else spec.affect
    spec = msgspec.structs.replace(
        spec,
        name=f"{recipe.name}-{second.source}",
        labels=second.labels.names,
        affect=affect,
        trained_on=(second.origin, *(line for line in spec.trained_on if line != second.origin)),
    )
    save_weights(folder / "auxiliary.safetensors", network, spec, overwrite=True)
    network.expression, network.classes = first, len(chips.labels)


@dataclass(frozen=True)
class _Ready:
    """What a training needs. rows: the held-out ones as a manifest.  fingerprint: of the rows to learn from."""

    learner: ExpressionModule
    batches: DataLoader[Batch]
    held: ChipDataset
    rows: Manifest
    fingerprint: str
    facts: dict[str, Any]


def _make_ready(
    recipe: Recipe,
    chips: Manifest,
    folder: Path,
    start: Origins,
    transform: Transform | None,
    tell: Callable[[str], None],
    second: Auxiliary | None,
) -> _Ready:
    train, rows = two_sides(chips, recipe)
    network = build_network(recipe.network, chips.labels, recipe.crop, len(second.labels) if second else 0)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    check_sides(network, recipe)
    facts = dict(start.facts)
    taught = read_teachers(start.teachers, train.ids, chips.labels, recipe, tell, second.labels if second else None)
    learned, asked = (second.targets(side.ids) if second else None for side in (train, rows))
    beside = learned if taught.beside is None or learned is None else torch.cat([learned, taught.beside], dim=1)
    dataset = _dataset(train, folder / "train.npy", taught.told, beside)
    held = _dataset(rows, folder / "held.npy", auxiliary=asked)
    if start.init is not None:
        facts["init"] = _begin(network, start.init, _some(dataset, recipe.crop.border), rows.ids, tell)
    check_rows(dataset, chips.labels, recipe)
    balance = class_weights(dataset.targets, recipe.loss.balance, recipe.loss.effective)
    others = None if learned is None else class_weights(learned, recipe.loss.balance, recipe.loss.effective)
    learner = ExpressionModule(network, recipe, balance, taught.networks, transform, others)
    sampler = EpochSampler(dataset.targets, recipe.data, recipe.seed, learner.place)
    batches = loader(dataset, recipe.trainer.batch, sampler)
    return _Ready(learner, batches, held, rows, train.fingerprint(), facts)


def _begin(
    network: Network, init: Path, chips: Tensor, held: Sequence[str], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Takes weights over and says what begins afresh, what was widened, and whether they know the held-out rows."""
    facts = start_from(network, init, chips=chips)
    fresh, widened = facts["fresh"], len(facts["widened"])
    more = f" and {len(fresh) - 6} more" if len(fresh) > 6 else ""
    tell(f"--init {init}: begins afresh: {', '.join(fresh[:6]) or 'nothing'}{more}")
    if widened:
        tell(f"--init {init}: is narrower: {widened} tensors were put into the first channels of wider ones")
    learned = learned_rows(init)
    known = len(learned.rows & set(held))
    if learned.doubt:
        tell(f"--init {init}: {learned.doubt}")
    if known:
        tell(
            f"--init {init}: has learned from {known:,} of the {len(held):,} held-out rows: figures on them flatter and the "
            "temperature comes out too low; give data.validation and data.fold as that run had them"
        )
    return facts


def _some(dataset: ChipDataset, border: int, count: int = 512) -> Tensor:
    """Chips from all over a dataset, as a network sees them without augmentation: (n, 3, h, w) float32 0..255."""
    return centre(dataset.chips[:: max(1, len(dataset) // count)][:count], border).contiguous()


def _say_affect(recipe: Recipe, labels: LabelSet, tell: Callable[[str], None]) -> None:
    """Labels of one's own have no mean valence and arousal; the circumplex cannot know them."""
    unknown = [name for name, row in zip(labels, affect_means(labels), strict=True) if np.isnan(row).any()]
    if recipe.network.affect == "circumplex" and unknown:
        tell(
            f"network.affect: no mean valence and arousal is known for {', '.join(unknown)}: both will be NaN; set "
            "network.affect=none, or trained with annotated data"
        )


def _dataset(chips: Manifest, cache: Path, told: Tensor | None = None, auxiliary: Tensor | None = None) -> ChipDataset:
    """In memory if the decoded chips take less than _IN_MEMORY bytes, else mapped from a file in the run folder."""
    crop = chips.header.crop
    assert crop is not None
    pixels = (crop.width + 2 * crop.border) * (crop.height + 2 * crop.border) * (3 if crop.colour == "rgb" else 1)
    return ChipDataset(chips, cache if pixels * len(chips) > _IN_MEMORY else None, told, auxiliary)


def _wait_for(path: Path) -> None:
    """Other processes of a distributed run wait until the first one has prepared the chips."""
    deadline = time.monotonic() + _WAIT
    while not path.is_file():
        if time.monotonic() > deadline:
            raise DataError(f"{path}: the first process has not prepared it within an hour")
        time.sleep(0.2)


def _spec(recipe: Recipe, chips: Manifest, temperature: float, ready: _Ready, second: Auxiliary | None) -> ModelSpec:
    labels: LabelSet = chips.labels
    return ModelSpec(
        name=recipe.name,
        labels=labels.names,
        crop=msgspec.structs.replace(recipe.crop, border=0),
        affect=recipe.network.affect,
        expression=recipe.network.expression,
        temperature=temperature,
        licence=_licence([chips.header.licence, *([second.licence] if second else [])]),
        trained_on=(
            f"{chips.header.source} ({chips.header.rule or 'labels'}), train split, sha256 {ready.fingerprint[:16]}",
            *([second.origin] if second else []),
            *lineage(ready.facts),
        ),
        made_by=f"mien {mien.__version__}, recipe {recipe.name}, seed {recipe.seed}, torch {torch.__version__}, {platform.machine()}",
        network=msgspec.to_builtins(recipe.network),
    )


def _licence(licences: Sequence[str]) -> str:
    """The weights' licence, with those of what they learned from.

    >>> _licence(["", "MIT"])
    'Apache-2.0 as far as the weights are ours; trained on: data whose licence is not known; MIT'
    """
    words = dict.fromkeys(licence or "data whose licence is not known" for licence in licences)
    return "Apache-2.0 as far as the weights are ours; trained on: " + "; ".join(words)
