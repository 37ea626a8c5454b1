"""The measures of mien.evaluation.metrics and mien.evaluation.affect for weighted rows, many weightings at once.

All take (k, n) weights and give (k,) values. With weights of one they equal the plain measures (the tests hold both to
scikit-learn and SciPy).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mien.evaluation.metrics import BINS, EPSILON

__all__ = ["affect_figures", "expression_figures", "from_confusion", "mean_figures", "weighted_auc"]

Values = dict[str, np.ndarray]


def expression_figures(
    probabilities: np.ndarray, targets: np.ndarray, labels: tuple[str, ...]
) -> Callable[[np.ndarray], Values]:
    """A function of weights that gives every measure of ExpressionScores, and recall, precision and F1 of each class."""
    p = probabilities.astype(np.float64)
    c, truth, said = p.shape[1], targets.argmax(axis=1), p.argmax(axis=1)
    cells = _onehot(truth * c + said, c * c)
    rows = _per_row(p, targets, truth)
    bins, confidence, hit = _bins(p), p.max(axis=1), (said == truth).astype(np.float64)
    there = np.unique(truth)
    orders = [_order(p[:, i]) for i in there]

    def figures(weights: np.ndarray) -> Values:
        found = from_confusion((weights @ cells).reshape(-1, c, c), labels)
        found |= mean_figures(weights, rows)
        gaps = np.abs(weights @ (bins * (hit - confidence)[:, None])).sum(axis=1)
        found["ece"] = gaps / weights.sum(axis=1)
        areas = [weighted_auc(weights, truth == i, *order) for i, order in zip(there, orders, strict=True)]
        found["auroc"] = _mean(np.stack([area for area, _ in areas]))
        found["aucpr"] = _mean(np.stack([precision for _, precision in areas]))
        return found

    return figures


def mean_figures(weights: np.ndarray, rows: dict[str, np.ndarray]) -> Values:
    """The weighted mean of each (n,) series."""
    total = weights.sum(axis=1)
    return {name: (weights @ values) / total for name, values in rows.items()}


def _per_row(p: np.ndarray, targets: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    logs = np.log(np.clip(p, EPSILON, 1))
    n = np.arange(len(p))
    two = np.argsort(-p, axis=1, kind="stable")[:, :2]
    return {
        "top2": (two == truth[:, None]).any(axis=1).astype(np.float64),
        "nll": -logs[n, truth],
        "brier": ((p - np.eye(p.shape[1])[truth]) ** 2).sum(axis=1),
        "cross_entropy": -(targets * logs).sum(axis=1),
    }


def _bins(p: np.ndarray) -> np.ndarray:
    return _onehot(np.minimum((p.max(axis=1) * BINS).astype(int), BINS - 1), BINS)


def _onehot(values: np.ndarray, width: int) -> np.ndarray:
    out = np.zeros((len(values), width))
    out[np.arange(len(values)), values] = 1
    return out


def _mean(stacked: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.where(known, stacked, 0).sum(axis=0) / known.sum(axis=0)


def from_confusion(confusion: np.ndarray, labels: tuple[str, ...]) -> Values:
    """Measures of (k, c, c) weighted confusion matrices, rows true and columns said; macro means over classes with rows."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true, said, total = confusion.sum(axis=2), confusion.sum(axis=1), confusion.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / true
        precision = np.where(true > 0, np.where(said > 0, hits / said, 0), np.nan)
        f1 = np.where(true > 0, 2 * hits / (true + said), np.nan)
        accuracy = hits.sum(axis=1) / total
        chance = (true * said).sum(axis=1) / total**2
        counts, values = true + said, 2 * total
        expected = 1 - (counts * (counts - 1)).sum(axis=1) / (values * (values - 1))
        found = {
            "accuracy": accuracy,
            "macro_recall": _mean(recall.T),
            "macro_precision": _mean(precision.T),
            "macro_f1": _mean(f1.T),
            "weighted_f1": (np.nan_to_num(f1) * true).sum(axis=1) / total,
            "kappa": np.where(chance < 1, (accuracy - chance) / (1 - chance), np.nan),
            "alpha": np.where(expected > 0, 1 - (1 - accuracy) / expected, np.nan),
        }
    for i, name in enumerate(labels):
        found |= {f"{name} recall": recall[:, i], f"{name} precision": precision[:, i], f"{name} f1": f1[:, i]}
    return found


def _order(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows by rising score, and where each group of equal scores begins."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def weighted_auc(
    weights: np.ndarray, positive: np.ndarray, order: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(k,) areas under the ROC curve, and average precisions, of (n,) positives; ties count half, as in scikit-learn.

    NaN where a draw has no positive, or (ROC) no negative row.
    """
    ranked = weights[:, order]
    yes = np.add.reduceat(ranked * positive[order], starts, axis=1)
    both = np.add.reduceat(ranked, starts, axis=1)
    no = both - yes
    positives, negatives = yes.sum(axis=1), no.sum(axis=1)
    below = np.cumsum(no, axis=1) - no / 2
    above, all_above = (np.cumsum(part[:, ::-1], axis=1)[:, ::-1] for part in (yes, both))
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (yes * below).sum(axis=1) / (positives * negatives)
        precision = (yes * np.where(all_above > 0, above / all_above, 0)).sum(axis=1) / positives
    return np.where((positives > 0) & (negatives > 0), area, np.nan), np.where(positives > 0, precision, np.nan)


def affect_figures(said: np.ndarray, true: np.ndarray) -> Callable[[np.ndarray], Values]:
    """A function of weights that gives every measure of (n, 2) answers against annotations, neither with NaN."""
    x, y = said.astype(np.float64), true.astype(np.float64)
    same = ((x >= 0) == (y >= 0)).all(axis=1).astype(np.float64)

    def figures(weights: np.ndarray) -> Values:
        found = mean_figures(weights, {"quadrant": same})
        for i, what in enumerate(("valence", "arousal")):
            found |= {f"{what} {name}": v for name, v in _of_affect(weights, x[:, i], y[:, i]).items()}
        return found

    return figures


def _of_affect(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> Values:
    rows = {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y, "mae": np.abs(x - y)}
    rows |= {"mse": (x - y) ** 2, "sagr": (np.sign(x) == np.sign(y)).astype(np.float64)}
    m = mean_figures(weights, rows)
    vx, vy, cov = m["xx"] - m["x"] ** 2, m["yy"] - m["y"] ** 2, m["xy"] - m["x"] * m["y"]
    spread = vx + vy + (m["x"] - m["y"]) ** 2
    varied = (vx > 1e-14) & (vy > 1e-14)
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = np.where(varied, cov / np.sqrt(vx * vy), np.nan)
        ccc = np.where(spread > 1e-14, 2 * np.where(varied, cov, 0.0) / spread, np.nan)
    return {"rmse": np.sqrt(m["mse"]), "mae": m["mae"], "corr": corr, "sagr": m["sagr"], "ccc": ccc}
