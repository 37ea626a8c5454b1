"""The chips that a run trains on: sources read, labels projected, faces cut, merged, kept in the run folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mien.data.manifest import Manifest, Sample, is_manifest
from mien.data.prepare import prepare, unfound
from mien.data.sources import read_source, source
from mien.data.split import hold_out, merge, project
from mien.errors import ConfigError, DataError, DatasetNotFound
from mien.files import whole_file
from mien.labels import LabelSet, label_set
from mien.recipe import Recipe
from mien.runtime.detect import open_detector

__all__ = ["Progress", "check_sources", "training_chips", "two_sides"]

Progress = Callable[[Iterable[Sample]], Iterable[Sample]]


def check_sources(recipe: Recipe, data: Sequence[Path], kept: bool = False) -> tuple[list[Path], Path]:
    """(the place of each source, or one manifest for all; the place of `data.auxiliary`, by default the first source's).

    kept: whether the run has the auxiliary labels already.  Raises ConfigError, DatasetNotFound, before anything is done: an
    unknown source, another number of places than of sources, no auxiliary labels there.
    """
    names, second = recipe.data.sources, recipe.data.auxiliary
    places = list(data)
    more = second != "none" and (
        len(places) == len(names) + 1 or (len(places) == 2 != len(names) and is_manifest(places[0]))
    )
    beside = places.pop() if more else None
    whole = len(places) == 1 and is_manifest(places[0])
    asked = [] if whole else [("data.sources", name) for name in names]
    for address, name in [*asked, *([] if second == "none" else [("data.auxiliary", second)])]:
        try:
            source(name)
        except DataError as error:
            raise ConfigError(f"{address}: {error}") from error
    if len(places) != len(names) and not whole:
        raise ConfigError(
            f"data.sources: names {len(names)} ({', '.join(names)}), --data was given {len(data)} times; give the place "
            "of each in this order, or one manifest that stands for all"
        )
    beside = places[0] if beside is None else beside
    if second != "none" and not kept:
        _check_second(second, beside)
    return places, beside


def _check_second(name: str, place: Path) -> None:
    card, without = source(name).card, "or leave it out: --set data.auxiliary=none"
    if is_manifest(place):
        raise ConfigError(
            f"data.auxiliary: {place} is a manifest, which holds one set of labels; give the place of {name} as one more "
            f"--data, {without}"
        )
    if not place.exists() or not source(name).matches(place):
        raise DatasetNotFound(
            f"data.auxiliary: no {name} at {place}; it expects {card.layout}; {card.obtain}; {without}"
        )


def training_chips(
    recipe: Recipe,
    data: Sequence[Path],
    folder: Path,
    progress: Progress = lambda rows: rows,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """The chips of the recipe's sources, from the run folder if they are there, else prepared and kept there.

    data: the place of each source (a manifest's file may stand for it), or one manifest for all of them.
    Only the train split, and the validation split where the recipe holds nothing out: rows that judge are not read
    into a run.
    """
    stored = folder / "chips.parquet"
    if stored.is_file():
        return Manifest.read(stored)
    labels, missed, parts = label_set(recipe.data.labels), [], []
    read = [_wanted_rows(_read(recipe, number, place), recipe) for number, place in enumerate(data)]
    _check_labels(labels, read)
    for manifest, place in zip(read, data, strict=True):
        chips, without = _cut(_projected(manifest, labels, tell), recipe, place, progress)
        if count := unfound(chips.table):
            tell(
                f"{chips.header.source}: in {count:,} of {len(chips):,} pictures no face was found: the whole picture was taken"
            )
        parts.append(chips)
        missed += without
    whole = parts[0] if len(parts) == 1 else merge(parts, labels.names)
    if missed:
        _list(missed, folder / "missed.csv")
        rows = sum(map(len, parts)) + len(missed)
        tell(f"{len(missed):,} of {rows:,} rows gave no chip; each with its reason: {folder / 'missed.csv'}")
    whole.write(stored)
    return whole


def _read(recipe: Recipe, number: int, place: Path) -> Manifest:
    if is_manifest(place):
        return Manifest.read(place)
    return read_source(recipe.data.sources[number], place, recipe.data.rule)


def _wanted_rows(manifest: Manifest, recipe: Recipe) -> Manifest:
    wanted = {"train"} if recipe.data.validation else {"train", "validation"}
    return manifest.take(np.flatnonzero(np.isin(manifest.splits(), list(wanted))))


def _check_labels(labels: LabelSet, read: Sequence[Manifest]) -> None:
    strange = [name for name in labels if not any(name in manifest.labels for manifest in read)]
    if strange:
        there = dict.fromkeys(name for manifest in read for name in manifest.labels)
        names = " + ".join(manifest.header.source for manifest in read)
        raise ConfigError(f"data.labels: {names} has no {', '.join(strange)}; it has {', '.join(there)}")


def _projected(manifest: Manifest, labels: LabelSet, tell: Callable[[str], None]) -> Manifest:
    """Onto the recipe's labels; says which rows that leaves out."""
    if manifest.labels == labels:
        return manifest
    moved = project(manifest, labels.names)
    lost = len(manifest) - len(moved)
    if lost:
        others = ", ".join(name for name in manifest.labels if name not in labels)
        tell(f"{manifest.header.source}: {lost:,} of {len(manifest):,} rows are left out: {others} not in data.labels")
    return moved


def _cut(manifest: Manifest, recipe: Recipe, place: Path, progress: Progress) -> tuple[Manifest, list[tuple[str, str]]]:
    """The chips, and the rows that gave none."""
    if manifest.header.crop is not None:
        if manifest.header.crop != recipe.crop:
            raise ConfigError(f"crop: {place} holds chips cut as {manifest.header.crop}; the recipe says {recipe.crop}")
        return manifest, []
    finder = None if manifest.header.framing is not None else open_detector("auto", recipe.crop)
    prepared = prepare(manifest, recipe.crop, finder, progress)
    if len(prepared.missed) > 0.1 * len(manifest):
        first = "; ".join(f"{name}: {why}" for name, why in prepared.missed[:3])
        raise DataError(
            f"{place}: {len(prepared.missed)} of {len(manifest)} rows gave no chip ({first}); see `mien data prepare`"
        )
    return prepared.chips, list(prepared.missed)


def _list(missed: Sequence[tuple[str, str]], path: Path) -> None:
    with (
        whole_file(path, overwrite=True) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([("id", "reason"), *missed])


def two_sides(chips: Manifest, recipe: Recipe) -> tuple[Manifest, Manifest]:
    """(rows to learn from, held-out rows)."""
    train = chips.split("train")
    if recipe.data.validation:
        return hold_out(train, recipe.data.validation, recipe.data.fold)
    try:
        return train, chips.split("validation")
    except DataError as error:
        raise DataError(f"{error}; set data.validation=0.1 to hold some rows out") from error
