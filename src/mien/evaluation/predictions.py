"""Predictions: what a model said about a manifest, as one table, whatever the model was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mien.data.manifest import Manifest
from mien.data.prepare import chips
from mien.errors import DataError
from mien.evaluation.averaging import views
from mien.files import whole_file
from mien.labels import KNOWN_SETS, LabelSet

__all__ = ["ChipModel", "Predictions", "predict", "projected", "read_predictions", "write_predictions"]


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
        if len(set(self.ids)) != n:
            raise DataError("predictions: an id stands on two rows")
        silent = np.isnan(self.probabilities).all(axis=1)
        if silent.any() and not silent.all():
            raise DataError(f"predictions: row {int(silent.argmax())} has no probabilities, others have")
        if n and not silent.all() and not np.allclose(self.probabilities.sum(axis=1), 1, atol=1e-3):
            wrong = int(np.argmax(~np.isclose(self.probabilities.sum(axis=1), 1, atol=1e-3)))
            raise DataError(
                f"predictions: the probabilities of {self.ids[wrong]} do not sum to one; give probabilities, not logits"
            )


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
        raise DataError(f"predictions: {predictions.ids[lost[0]]} has nothing on {', '.join(labels)}")
    return Predictions(labels, predictions.ids, moved, predictions.affect)


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
    suffix = Path(path).suffix
    if suffix not in {".csv", ".parquet"}:
        raise DataError(f"{path}: predictions are written as .csv or .parquet")
    with whole_file(path, overwrite) as part:
        (pq.write_table if suffix == ".parquet" else pa_csv.write_csv)(table, part)


def read_predictions(path: str | PathLike[str]) -> Predictions:
    """Read a table with `id` and either a column p_LABEL for each label or one column `label`; valence, arousal if known.

    So another tool's answers come in. A `label` alone counts as certain. Raises DataError: file, column, row.
    """
    path = Path(path)
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pa_csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable table of predictions ({error})") from error
    columns = table.column_names
    if "id" not in columns:
        raise DataError(f"{path}: no column id; it has {', '.join(columns)}")
    ids = [str(name) for name in table["id"].to_pylist()]
    names = [name.removeprefix("p_") for name in columns if name.startswith("p_")]
    if names:
        labels = LabelSet(tuple(names))
        probabilities = np.stack([_numbers(table, f"p_{name}", path) for name in names], axis=1)
    elif "label" in columns:
        said = [str(name) for name in table["label"].to_pylist()]
        known = [name for name in KNOWN_SETS["affectnet8"] if name in said]
        labels = LabelSet(tuple(known + sorted(set(said) - set(known))))
        probabilities = np.stack([labels.onehot(name) for name in said])
    else:
        raise DataError(f"{path}: no columns p_LABEL and no column label; it has {', '.join(columns)}")
    unknown = np.full(len(ids), np.nan)
    affect = [_numbers(table, name, path) if name in columns else unknown for name in ("valence", "arousal")]
    return Predictions(labels, ids, probabilities.astype(np.float64), np.stack(affect, axis=1))


def _numbers(table: pa.Table, column: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(table[column].to_numpy(zero_copy_only=False), np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}, column {column}: not numbers ({error})") from error
