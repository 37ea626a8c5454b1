"""Robustness: the same rows under every corruption at every strength, against the same rows untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import cv2
import msgspec
import numpy as np

from mien.data.manifest import Manifest
from mien.data.prepare import chips
from mien.errors import DataError
from mien.evaluation.corruptions import CORRUPTIONS, border_for, corrupted
from mien.evaluation.metrics import truths, wilson
from mien.evaluation.predictions import ChipModel
from mien.evaluation.resample import DRAWS, draws, edges
from mien.labels import LabelSet

__all__ = ["LEVELS", "Level", "Robustness", "robustness"]

LEVELS = range(1, 6)
_BLOCK = 512


class Level(msgspec.Struct, frozen=True):
    """One corruption at one strength.  interval: of the accuracy.  flips: share of rows whose top label is another than untouched."""

    strength: float
    accuracy: float
    interval: tuple[float, float]
    flips: float
    flips_interval: tuple[float, float]


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """How a model stands corruptions (mien.evaluation.corruptions).

    clean: accuracy untouched.  relative: mean over all corruptions and strengths of accuracy / clean: the one figure.
    flips: mean share of rows whose top label changes.  curves: levels 1 to 5 of each corruption.  relatives: the mean relative
    accuracy of each corruption alone.  Intervals by bootstrap over rows (subjects, where known), the same rows throughout;
    those of single levels are Wilson's.
    """

    rows: int
    seed: int
    clean: float
    relative: float
    relative_interval: tuple[float, float]
    flips: float
    flips_interval: tuple[float, float]
    curves: dict[str, tuple[Level, ...]]
    relatives: dict[str, float]
    relatives_intervals: dict[str, tuple[float, float]]


def robustness(
    model: ChipModel,
    labels: LabelSet,
    manifest: Manifest,
    seed: int = 0,
    count: int = DRAWS,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda steps: steps,
) -> Robustness:
    """Judge a model on the labelled rows of a manifest of chips, whose labels may be some of the model's.

    Chips should have the border that `border_for` says; what lacks repeats the edge. Raises DataError: no row has a label.
    """
    truth = truths(manifest)
    kept = np.flatnonzero(truth >= 0)
    if not len(kept):
        raise DataError(f"{manifest.header.source}: no row has a label; robustness judges expressions")
    manifest, truth = manifest.take(kept), truth[kept]
    names = manifest.ids
    steps = [("", 0), *((name, level) for name in CORRUPTIONS for level in LEVELS)]
    said = np.zeros((len(steps), len(kept)), np.int64)
    blocks = [range(start, min(start + _BLOCK, len(kept))) for start in range(0, len(kept), _BLOCK)]
    for block, i in progress([(block, i) for block in blocks for i in range(len(steps))]):
        if i == 0:
            pictures, border = _bordered(manifest.take(block))
            ids = [names[row] for row in block]
        name, level = steps[i]
        said[i, block] = _answers(model, labels, manifest.labels, pictures, border, ids, name, level, seed)
    hits = (said == truth).astype(np.float64)
    if not hits[0].any():
        raise DataError("robustness: not one row is read rightly untouched, so there is nothing to compare with")
    flips = (said != said[0]).astype(np.float64)
    return _summed(hits, flips, manifest.table["subject"].to_pylist(), seed, count)


def _bordered(manifest: Manifest) -> tuple[np.ndarray, int]:
    """(n, h, w, 3) chips with a border that is wide enough, and that border."""
    pictures = chips(manifest)
    crop = manifest.header.crop
    assert crop is not None
    if pictures.shape[-1] == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    wanted = max(border_for(min(crop.width, crop.height)), crop.border)
    lacking = wanted - crop.border
    if lacking:
        pad = (lacking,) * 4
        pictures = np.stack([cv2.copyMakeBorder(chip, *pad, cv2.BORDER_REPLICATE) for chip in pictures])
    return pictures, wanted


def _answers(
    model: ChipModel,
    labels: LabelSet,
    onto: LabelSet,
    pictures: np.ndarray,
    border: int,
    ids: list[str],
    name: str,
    level: int,
    seed: int,
) -> np.ndarray:
    """(n,) the top label of each chip after a corruption, as a number of `onto`."""
    if name:
        shown = np.stack(
            [corrupted(chip, border, name, level, row, seed) for chip, row in zip(pictures, ids, strict=True)]
        )
    else:
        shown = pictures[:, border : pictures.shape[1] - border, border : pictures.shape[2] - border]
    probabilities = model.run(shown)[0]
    if labels != onto:
        probabilities = np.nan_to_num(labels.project(probabilities, onto))
    return probabilities.argmax(axis=1)


def _summed(hits: np.ndarray, flips: np.ndarray, subjects: list[str | None], seed: int, count: int) -> Robustness:
    names, n = list(CORRUPTIONS), hits.shape[1]
    of = {name: slice(1 + len(LEVELS) * i, 1 + len(LEVELS) * (i + 1)) for i, name in enumerate(names)}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "all", "flips")}
    for weights in draws(n, subjects, count):
        accuracy = weights @ hits.T / weights.sum(axis=1, keepdims=True)
        relative = accuracy / np.where(accuracy[:, :1] > 0, accuracy[:, :1], np.nan)
        drawn["all"].append(relative[:, 1:].mean(axis=1))
        drawn["flips"].append((weights @ flips.T / weights.sum(axis=1, keepdims=True))[:, 1:].mean(axis=1))
        for name in names:
            drawn[name].append(relative[:, of[name]].mean(axis=1))
    found = {name: edges(np.concatenate(parts)) for name, parts in drawn.items()}
    relative = hits.mean(axis=1) / hits[0].mean()
    return Robustness(
        rows=n,
        seed=seed,
        clean=float(hits[0].mean()),
        relative=float(relative[1:].mean()),
        relative_interval=found["all"],
        flips=float(flips[1:].mean()),
        flips_interval=found["flips"],
        curves={name: tuple(_levels(name, hits[of[name]], flips[of[name]])) for name in names},
        relatives={name: float(relative[of[name]].mean()) for name in names},
        relatives_intervals={name: found[name] for name in names},
    )


def _levels(name: str, hits: np.ndarray, flips: np.ndarray) -> Iterable[Level]:
    for strength, right, moved in zip(CORRUPTIONS[name].strengths, hits, flips, strict=True):
        n = len(right)
        yield Level(
            strength, float(right.mean()), wilson(int(right.sum()), n), float(moved.mean()), wilson(int(moved.sum()), n)
        )
