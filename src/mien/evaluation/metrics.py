"""How right predictions are. Pure functions; scikit-learn where it defines the measure."""

from __future__ import annotations

import msgspec
import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, recall_score

from mien.data.manifest import Manifest
from mien.errors import DataError
from mien.evaluation.predictions import Predictions

__all__ = ["ExpressionScores", "concordance", "expected_calibration_error", "macro_f1", "score_expression", "wilson"]


class ExpressionScores(msgspec.Struct, frozen=True):
    """rows judged; accuracy with its 95 % Wilson interval; macro means over the classes that have rows.

    recalls: per class, NaN-free (classes without rows are absent).  confusion: rows true, columns predicted.
    """

    rows: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    macro_recall: float
    ece: float
    recalls: dict[str, float]
    confusion: list[list[int]]


def score_expression(predictions: Predictions, manifest: Manifest) -> ExpressionScores:
    """Judge predictions against a manifest whose targets are hard or soft (the largest entry counts).

    The two must hold the same ids, in any order, and the same labels. Raises DataError.
    """
    if list(predictions.labels) != list(manifest.labels):
        raise DataError(
            f"the model has the labels {', '.join(predictions.labels)}; the data {', '.join(manifest.labels)}"
        )
    at = {name: row for row, name in enumerate(predictions.ids)}
    if set(at) != set(manifest.ids):
        raise DataError(f"predictions for {len(at)} rows, the data has {len(manifest)}: the ids differ")
    probabilities = predictions.probabilities[[at[name] for name in manifest.ids]]
    truth, said = manifest.targets().argmax(axis=1), probabilities.argmax(axis=1)
    there = sorted(set(truth.tolist()))
    names = list(manifest.labels)
    recalls = recall_score(truth, said, labels=there, average=None, zero_division=0)
    hits = int((truth == said).sum())
    return ExpressionScores(
        rows=len(truth),
        accuracy=hits / len(truth),
        interval=wilson(hits, len(truth)),
        macro_f1=float(f1_score(truth, said, labels=there, average="macro", zero_division=0)),
        macro_recall=float(np.mean(recalls)),
        ece=expected_calibration_error(probabilities, truth),
        recalls={names[i]: float(r) for i, r in zip(there, recalls, strict=True)},
        confusion=confusion_matrix(truth, said, labels=range(len(names))).tolist(),
    )


def macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean F1 over the classes that have rows, from (n,) class indices."""
    return float(f1_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0))


def concordance(a: np.ndarray, b: np.ndarray) -> float:
    """Lin's concordance of two (n,) series over the whole set: 2 cov / (var + var + (mean - mean)^2), population variance.

    L. I. Lin, Biometrics 45(1), 1989. NaN if both are constant and equal.

    >>> concordance(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    1.0
    """
    spread = np.var(a) + np.var(b) + (np.mean(a) - np.mean(b)) ** 2
    return float(2 * np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread else float("nan")


def wilson(hits: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (E. B. Wilson, JASA 22, 1927).

    >>> [round(edge, 4) for edge in wilson(85, 100)]
    [0.7672, 0.9069]
    """
    share = hits / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    return middle - half, middle + half


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over equal-width bins of the top probability, weighted by rows (Guo et al. 2017).

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(hit[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))
