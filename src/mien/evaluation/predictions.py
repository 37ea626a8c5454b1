"""Predictions: what a model said about a manifest, as one table, whatever the model was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mien.data.manifest import Manifest, row_numbers
from mien.data.prepare import chips
from mien.errors import DataError
from mien.evaluation.averaging import views
from mien.files import whole_file
from mien.labels import LabelSet

__all__ = ["ChipModel", "Predictions", "predict", "predictions_kind", "projected", "write_predictions"]


class ChipModel(Protocol):
    """Anything that answers chips; mien.runtime.classify.Classifier is one."""

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, h, w, 3) -> (n, c) probabilities, (n, 2) affect."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """ids of n rows, (n, c) probabilities over `labels`, (n, 2) affect (NaN where unknown).

    Raises DataError: lengths or widths disagree, an id is repeated, probabilities are NaN or do not sum to one.
    """

    labels: LabelSet
    ids: list[str]
    probabilities: np.ndarray
    affect: np.ndarray

    def __post_init__(self) -> None:
        n, c = len(self.ids), len(self.labels)
        if self.probabilities.shape != (n, c) or self.affect.shape != (n, 2):
            raise DataError(
                f"predictions: {self.probabilities.shape} probabilities, {self.affect.shape} affect for {n} rows of {c}"
            )
        twice = next((name for name, count in Counter(self.ids).items() if count > 1), None)
        if twice is not None:
            raise DataError(f"predictions: an id stands on two rows: {twice}; keep one answer a row")
        silent = np.isnan(self.probabilities).all(axis=1)
        if silent.any() and not silent.all():
            raise DataError(f"predictions: {self.ids[int(silent.argmax())]} has no probabilities, others have")
        if n and not silent.all():
            _check_probabilities(self.ids, self.labels, self.probabilities)

    def take(self, rows: Sequence[int] | np.ndarray) -> Predictions:
        """These rows, in this order, or those of a mask; as of a manifest (see Manifest.take). Raises IndexError."""
        numbers = row_numbers(rows, len(self.ids))
        ids = [self.ids[row] for row in numbers]
        return Predictions(self.labels, ids, self.probabilities[numbers], self.affect[numbers])


def _check_probabilities(ids: list[str], labels: LabelSet, p: np.ndarray) -> None:
    """Raises DataError for what is no probability, naming row and label."""
    for wrong, what, move in (
        (~np.isfinite(p), "is not a number", "answer every row, or leave its row out"),
        (p < -1e-6, "is below 0", "give probabilities, not logits"),
    ):
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                f"predictions: the probability of {labels.names[column]} for {ids[row]} {what} ({p[row, column]}); {move}"
            )
    sums = p.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3):
        row = int(np.argmax(~np.isclose(sums, 1, atol=1e-3)))
        percent = np.allclose(sums, 100, atol=0.5)
        move = "they look like percent: divide by 100" if percent else "give probabilities, not logits"
        raise DataError(f"predictions: the probabilities of {ids[row]} do not sum to one ({sums[row]:.4g}); {move}")


def predict(model: ChipModel, labels: LabelSet, manifest: Manifest, tta: Sequence[str] = ()) -> Predictions:
    """What a model says about the chips of a prepared manifest.

    tta: kinds of mien.evaluation.averaging.KINDS: averaged with what it says of these other views of each chip.
    Raises ConfigError: a kind that does not exist.
    """
    pictures = chips(manifest)
    if pictures.shape[-1] == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    crop = manifest.header.crop
    assert crop is not None
    said = [model.run(view) for view in views(pictures, crop.border, tta)]
    probabilities, affect = (np.mean([answer[i] for answer in said], axis=0) for i in (0, 1))
    return Predictions(labels, manifest.ids, probabilities, affect)


def projected(predictions: Predictions, labels: LabelSet) -> Predictions:
    """Moved onto another label set: columns dropped or reordered, rows renormalised. Raises DataError: a row has nothing left."""
    if predictions.labels == labels or np.isnan(predictions.probabilities).all():
        return predictions
    moved = predictions.labels.project(predictions.probabilities, labels)
    lost = np.flatnonzero(np.isnan(moved).any(axis=1))
    if len(lost):
        raise DataError(
            f"predictions: {predictions.ids[lost[0]]} has nothing on {', '.join(labels)}; give the "
            "probabilities of all labels (p_LABEL), not the likeliest alone"
        )
    return Predictions(labels, predictions.ids, moved, predictions.affect)


def predictions_kind(path: str | PathLike[str] | None) -> str:
    """The kind of a table of predictions: '.csv' or '.parquet'. Raises DataError for another suffix."""
    suffix = "" if path is None else Path(path).suffix.lower()
    if path is not None and suffix not in {".csv", ".parquet"}:
        raise DataError(f"{path}: predictions are written as .csv or .parquet")
    return suffix


def write_predictions(predictions: Predictions, path: str | PathLike[str], overwrite: bool = False) -> None:
    """Write id, p_LABEL for each label, valence, arousal: Parquet or CSV by the suffix. Raises OutputError, DataError."""
    table = pa.table(
        {
            "id": pa.array(predictions.ids, pa.string()),
            **{f"p_{name}": predictions.probabilities[:, i] for i, name in enumerate(predictions.labels)},
            "valence": predictions.affect[:, 0],
            "arousal": predictions.affect[:, 1],
        }
    )
    suffix = predictions_kind(path)
    with whole_file(path, overwrite) as part:
        (pq.write_table if suffix == ".parquet" else pa_csv.write_csv)(table, part)
