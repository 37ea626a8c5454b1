"""A judgement: scores with intervals, and without the rows that have a copy in training; what a report shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from mien.data.audit import audit
from mien.data.manifest import Manifest
from mien.data.split import merge
from mien.evaluation.affect import concordance, rmse
from mien.evaluation.intervals import bootstrap
from mien.evaluation.metrics import Scores, aligned, reliability, score
from mien.evaluation.predictions import Predictions

__all__ = ["Judgement", "copies_in_training", "coverage", "judge"]


class Judgement(msgspec.Struct, frozen=True):
    """What a model is worth on a set of rows.

    intervals: 95 % bootstrap intervals (1,000 draws, by subject where known; accuracy's is in the scores, Wilson's).
    without_copies: the scores without rows that have an identical or near copy in training; None if that was not asked for.
    copies: how many such rows there are.  reliability: (mean confidence, accuracy, rows) per bin.
    coverage: (least confidence, share of rows at least so sure, accuracy on them).
    """

    model: str
    data: str
    scores: Scores
    intervals: dict[str, tuple[float, float]]
    copies: int | None = None
    without_copies: Scores | None = None
    reliability: list[tuple[float, float, int]] = []
    coverage: list[tuple[float, float, float]] = []


def judge(
    model: str, predictions: Predictions, manifest: Manifest, copies: set[str] | None = None, draws: int = 1000
) -> Judgement:
    """Judge predictions; copies: ids of judged rows that have a copy in training. Raises DataError."""
    scores = score(predictions, manifest)
    rows = aligned(predictions, manifest)
    intervals: dict[str, tuple[float, float]] = {}
    calibration: list[tuple[float, float, int]] = []
    covered: list[tuple[float, float, float]] = []
    if scores.expression is not None:
        targets = manifest.targets()
        known = ~np.isnan(targets).any(axis=1)
        truth, probabilities = targets[known].argmax(axis=1), rows.probabilities[known]
        subjects = [s for s, k in zip(manifest.table["subject"].to_pylist(), known, strict=True) if k]
        intervals |= _expression_intervals(truth, probabilities.argmax(axis=1), subjects, draws)
        calibration, covered = reliability(probabilities, truth), coverage(probabilities, truth)
    if scores.affect is not None:
        intervals |= _affect_intervals(rows.affect, manifest.affect(), manifest.table["subject"].to_pylist(), draws)
    left = None
    if copies is not None:
        keep = [row for row, name in enumerate(manifest.ids) if name not in copies]
        left = score(_only(rows, keep), manifest.take(keep)) if keep else None
    return Judgement(
        model=model,
        data=manifest.header.source,
        scores=scores,
        intervals=intervals,
        copies=None if copies is None else sum(name in copies for name in manifest.ids),
        without_copies=left,
        reliability=calibration,
        coverage=covered,
    )


def _only(predictions: Predictions, rows: list[int]) -> Predictions:
    ids = [predictions.ids[row] for row in rows]
    return Predictions(predictions.labels, ids, predictions.probabilities[rows], predictions.affect[rows])


def _expression_intervals(
    truth: np.ndarray, said: np.ndarray, subjects: list[str | None], draws: int
) -> dict[str, tuple[float, float]]:
    classes = int(max(truth.max(), said.max())) + 1

    def from_confusion(figure: Callable[[np.ndarray], float]) -> tuple[float, float]:
        def of(rows: np.ndarray) -> float:
            return figure(
                np.bincount(truth[rows] * classes + said[rows], minlength=classes**2).reshape(classes, classes)
            )

        return bootstrap(of, len(truth), subjects, draws)

    return {
        "macro_recall": from_confusion(_macro_recall),
        "macro_f1": from_confusion(_macro_f1),
        "kappa": from_confusion(_kappa),
    }


def _macro_recall(confusion: np.ndarray) -> float:
    totals = confusion.sum(axis=1)
    return float((np.diag(confusion)[totals > 0] / totals[totals > 0]).mean())


def _macro_f1(confusion: np.ndarray) -> float:
    there = confusion.sum(axis=1) > 0
    f1 = 2 * np.diag(confusion) / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1)
    return float(f1[there].mean())


def _kappa(confusion: np.ndarray) -> float:
    total = confusion.sum()
    by_chance = float((confusion.sum(axis=0) * confusion.sum(axis=1)).sum() / total**2)
    return float("nan") if by_chance == 1 else float((np.trace(confusion) / total - by_chance) / (1 - by_chance))


def _affect_intervals(
    said: np.ndarray, true: np.ndarray, subjects: list[str | None], draws: int
) -> dict[str, tuple[float, float]]:
    known = ~np.isnan(true).any(axis=1)
    said, true = said[known], true[known]
    names = [name for name, k in zip(subjects, known, strict=True) if k]
    found = {}
    for column, what in enumerate(("valence", "arousal")):
        for name, measure in (("rmse", rmse), ("ccc", concordance)):

            def figure(rows: np.ndarray, c: int = column, of: Any = measure) -> float:
                return float(of(said[rows, c], true[rows, c]))

            found[f"{what} {name}"] = bootstrap(figure, len(true), names, draws)
    return found


def coverage(probabilities: np.ndarray, truth: np.ndarray) -> list[tuple[float, float, float]]:
    """(least confidence, share of rows at least so sure, accuracy on them) from 0 to 0.95 in steps of 0.05."""
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    found = []
    for least in (round(0.05 * step, 2) for step in range(20)):
        sure = confidence >= least
        if sure.any():
            found.append((least, float(sure.mean()), float(hit[sure].mean())))
    return found


def copies_in_training(
    judged: Manifest, training: Manifest, progress: Callable[[Iterable[Any]], Iterable[Any]] = lambda rows: rows
) -> set[str]:
    """Ids of judged rows with an identical or near copy (mirror images too; see mien.data.audit) in the training rows."""
    prefix = "judged/"
    renamed = _prefixed(judged, prefix)
    found = audit(merge([_bare(renamed), _bare(training)]), progress=progress)
    copies: set[str] = set()
    for group in (*(same.ids for same in found.identical), *found.near_groups):
        ours = [name for name in group if name.startswith(prefix)]
        if len(ours) < len(group):
            copies |= {name.removeprefix(prefix) for name in ours}
    return copies


def _bare(manifest: Manifest) -> Manifest:
    """Without facts that need not agree for looking at pictures."""
    return Manifest(msgspec.structs.replace(manifest.header, crop=None, framing=None), manifest.table, manifest.root)


def _prefixed(manifest: Manifest, prefix: str) -> Manifest:
    import pyarrow as pa

    at = manifest.table.schema.get_field_index("id")
    ids = pa.array([prefix + name for name in manifest.ids], pa.string())
    return Manifest(manifest.header, manifest.table.set_column(at, "id", ids), manifest.root)
