"""Predictions: what a model said about a manifest, as one table, whatever the model was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mien.data.manifest import Manifest
from mien.data.prepare import chips
from mien.errors import DataError
from mien.labels import LabelSet

__all__ = ["ChipModel", "Predictions", "predict"]


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
        if not np.allclose(self.probabilities.sum(axis=1), 1, atol=1e-3):
            raise DataError("predictions: a row of probabilities does not sum to one; give probabilities, not logits")


def predict(model: ChipModel, labels: LabelSet, manifest: Manifest) -> Predictions:
    """What a model says about the chips of a prepared manifest."""
    pictures = chips(manifest)
    if pictures.shape[-1] == 1:
        pictures = np.repeat(pictures, 3, axis=-1)
    crop = manifest.header.crop
    assert crop is not None
    b = crop.border
    inner = pictures[:, b : pictures.shape[1] - b, b : pictures.shape[2] - b]
    return Predictions(labels, manifest.ids, *model.run(inner))
