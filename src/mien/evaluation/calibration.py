"""How far a model's confidence can be trusted: a temperature, and the confidence that is enough for a wanted precision."""

from __future__ import annotations

import msgspec
import numpy as np

from mien.data.manifest import Manifest
from mien.errors import DataError
from mien.evaluation.metrics import aligned, wilson
from mien.evaluation.predictions import Predictions

__all__ = ["ENOUGH", "LEAST", "Threshold", "fit_temperature", "sure_rows", "tempered", "threshold_for"]

#: Fewer rows than this say too little of a temperature or a threshold.
ENOUGH = 100
#: What a probability is at least before its logarithm is taken, here and in the graph of a calibrated file.
LEAST = 1e-30


class Threshold(msgspec.Struct, frozen=True):
    """A confidence and what it buys on the rows it was chosen by.

    value: an answer at least so confident counts as certain.  precision: share of right answers among these, with its 95 %
    Wilson interval.  coverage: share of all rows that are certain.  rows: how many are.
    """

    value: float
    precision: float
    interval: tuple[float, float]
    coverage: float
    rows: int


def sure_rows(predictions: Predictions, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """(n, c) probabilities and (n,) true classes of the rows whose label has more than half of the target.

    Raises DataError: other ids or labels, or fewer than ENOUGH such rows.
    """
    if predictions.labels != manifest.labels:
        raise DataError(
            f"the model has the labels {', '.join(predictions.labels)}; the data {', '.join(manifest.labels)}"
        )
    targets = manifest.targets()
    sure = np.nan_to_num(targets).max(axis=1) > 0.5
    if int(sure.sum()) < ENOUGH:
        raise DataError(
            f"{manifest.header.source}: {int(sure.sum())} rows with a clear label; fewer than {ENOUGH} say too little of "
            "a temperature or a threshold"
        )
    return aligned(predictions, manifest).probabilities[sure].astype(np.float64), targets[sure].argmax(axis=1)


def tempered(probabilities: np.ndarray, factor: float) -> np.ndarray:
    """What a softmax over a temperature `factor` times as high would have answered.

    >>> tempered(np.array([[0.8, 0.2]]), 2).round(3).tolist()
    [[0.667, 0.333]]
    """
    logs = np.log(np.clip(probabilities, LEAST, 1)) / factor
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """The factor from 0.2 to 5 on the temperature with the least mean -log probability of the truth (Guo et al. 2017,
    arXiv:1706.04599). One number for all rows: it changes how sure a model is, never what it says."""
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        said = tempered(probabilities, float(np.exp(power)))
        return float(-np.log(np.clip(said[np.arange(len(truth)), truth], LEAST, 1)).mean())

    edge = float(np.log(5))
    found = minimize_scalar(loss, bounds=(-edge, edge), method="bounded", options={"xatol": 1e-5})
    return round(float(np.exp(found.x)), 4)


def threshold_for(probabilities: np.ndarray, truth: np.ndarray, precision: float, least: int = 30) -> Threshold:
    """The lowest confidence from which the answers are right at least so often (a share in (0, 1]), over `least` rows or more.

    Raises DataError: no confidence is enough.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    >>> found = threshold_for(p, np.array([0, 0, 1, 0]), 0.75, least=1)
    >>> found.value, found.precision, found.coverage
    (0.6, 0.75, 1.0)
    """
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, right = confidence[order], np.cumsum(hit[order])
    counts = np.arange(1, len(truth) + 1)
    last = np.append(sorted_confidence[:-1] > sorted_confidence[1:], True)  # rows of one confidence go together
    fits = np.flatnonzero(last & (right / counts >= precision) & (counts >= least))
    if not len(fits):
        raise DataError(
            f"--precision {precision:g}: on these {len(truth):,} rows no confidence is enough (the surest {least} are right "
            f"in {right[min(least, len(truth)) - 1] / min(least, len(truth)):.1%}); ask for less, or leave it out"
        )
    at = int(fits[-1])
    edge, below = float(sorted_confidence[at]), sorted_confidence[at + 1 :].max(initial=-1.0)
    value = float(np.floor(edge * 1e6) / 1e6)  # rounded down, for a file that answers in single precision
    value = value if value > below else edge
    chosen = confidence >= value
    hits, rows = int(hit[chosen].sum()), int(chosen.sum())
    return Threshold(value, hits / rows, wilson(hits, rows), rows / len(truth), rows)
