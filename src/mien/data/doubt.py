"""Labels that are likely wrong, by what a model says of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from mien.data.manifest import Manifest
from mien.errors import DataError
from mien.labels import LabelSet

__all__ = ["LabelError", "Told", "given_labels", "label_errors"]


class LabelError(msgspec.Struct, frozen=True):
    """A row whose label is likely wrong. confidence: the model's probability of the given label."""

    id: str
    given: str
    likely: str
    confidence: float


class Told(Protocol):
    """What a model said: mien.evaluation.predictions.Predictions is one."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def labels(self) -> LabelSet: ...
    @property
    def probabilities(self) -> np.ndarray: ...


def given_labels(manifest: Manifest) -> list[str | None]:
    """The label of each row by the target's largest entry; None if unlabelled."""
    targets, names = manifest.targets(), manifest.labels.names
    known = ~np.isnan(targets).any(axis=1)
    best = np.nan_to_num(targets).argmax(axis=1)
    return [names[i] if there else None for i, there in zip(best, known, strict=True)]


def label_errors(manifest: Manifest, predictions: Told) -> tuple[LabelError, ...]:
    """Rows whose label is likely wrong, the least believed first, by confident learning.

    C. Northcutt, L. Jiang, I. Chuang, "Confident Learning", JAIR 2021, arXiv:1911.00068: a class's threshold is the mean
    probability that the model gives it on rows of that label; a row counts for the most probable class among those at or
    above their thresholds; rows that count for another class than their label (off the diagonal of the confident joint) are
    the errors, ranked by the probability of the given label. A soft target counts by its largest entry.
    """
    ids = {name: row for row, name in enumerate(manifest.ids)}
    strange = next((name for name in predictions.ids if name not in ids), None)
    if strange is not None:
        raise DataError(f"predictions: row {strange} is not in the manifest; predict this manifest's rows")
    if not set(predictions.labels) & set(manifest.labels):
        raise DataError("predictions: no label in common with the manifest; choose a model for its labels")
    told = predictions.labels.project(np.asarray(predictions.probabilities, np.float64), manifest.labels)
    labels = given_labels(manifest)
    rows = [
        (ids[name], p)
        for name, p in zip(predictions.ids, told, strict=True)
        if labels[ids[name]] and not np.isnan(p).any()
    ]
    if not rows:
        return ()
    given = np.array([manifest.labels.index(labels[row] or "") for row, _ in rows])
    likely, confidence = _confident(given, np.array([p for _, p in rows]))
    wrong = np.flatnonzero((likely >= 0) & (likely != given))
    names, everything = manifest.labels.names, manifest.ids
    return tuple(
        LabelError(everything[rows[i][0]], names[given[i]], names[likely[i]], float(confidence[i]))
        for i in wrong[np.argsort(confidence[wrong], kind="stable")]
    )


def _confident(given: np.ndarray, told: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the class that each row confidently counts for (-1: none), and (n,) the probability of the given one."""
    thresholds = np.full(told.shape[1], np.inf)
    for label in np.unique(given):
        thresholds[label] = told[given == label, label].mean()
    above = told >= thresholds - 1e-9
    likely = np.where(above.any(axis=1), np.where(above, told, -1).argmax(axis=1), -1)
    return likely, told[np.arange(len(given)), given]
