"""A judgement: scores with intervals, and without the rows that have a copy in training; what a report shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from mien.data.audit import audit
from mien.data.manifest import Manifest
from mien.data.prepare import without_chip
from mien.data.split import merge
from mien.errors import DataError
from mien.evaluation.agreement import per_row
from mien.evaluation.metrics import ExpressionScores, Scores, aligned, all_or_none, reliability, score, truths, wilson
from mien.evaluation.predictions import Predictions
from mien.evaluation.resample import DRAWS, intervals, tied
from mien.evaluation.robustness import Robustness
from mien.evaluation.slices import FEW, Slicing
from mien.evaluation.weighted import affect_figures, expression_figures, mean_figures

__all__ = ["Judgement", "copies_in_training", "coverage", "judge"]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is worth on a set of rows.

    made: the facts of its making, by name: rows and fingerprint of the data, the model's file and licence, versions.
    notes: conventions that took hold (a class without rows, a constant answer, very few rows).
    intervals: 95 % intervals by the names of the measures; 'happiness recall' and 'valence ccc' where there are several.
        Wilson's for accuracy, top-2, recall and precision where no subject has two rows; else the bootstrap, by subject.
    copies: judged rows that have an identical or near copy in training; without_copies: the scores without them; both None
        if that was not asked for (the scores also if nothing is left).
    reliability: (mean confidence, accuracy, rows) per bin.
    coverage: (least confidence, share of rows at least so sure, accuracy on them).
    slices: by columns; robustness: under corruptions; where they were asked for.
    """

    model: str
    data: str
    scores: Scores
    made: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    intervals: dict[str, tuple[float, float]]
    copies: int | None = None
    without_copies: Scores | None = None
    without_intervals: dict[str, tuple[float, float]] = {}
    reliability: list[tuple[float, float, int]] = []
    coverage: list[tuple[float, float, float]] = []
    slices: tuple[Slicing, ...] = ()
    robustness: Robustness | None = None


def judge(
    model: str,
    predictions: Predictions,
    manifest: Manifest,
    copies: set[str] | None = None,
    draws: int = DRAWS,
    made: Mapping[str, str] | None = None,
) -> Judgement:
    """Judge predictions. copies: ids of judged rows that have a copy in training. made: see Judgement. Raises DataError."""
    rows = aligned(predictions, manifest)
    scores, intervals = _scored(rows, manifest, draws)
    calibration: list[tuple[float, float, int]] = []
    covered: list[tuple[float, float, float]] = []
    if scores.expression is not None:
        truth = truths(manifest)
        known = truth >= 0
        calibration = reliability(rows.probabilities[known], truth[known])
        covered = coverage(rows.probabilities[known], truth[known])
    left = None if copies is None else [row for row, name in enumerate(manifest.ids) if name not in copies]
    clean = _left(rows, manifest, left, draws)
    return Judgement(
        model=model,
        data=manifest.header.source,
        scores=scores,
        made=dict(made or {}),
        notes=tuple(_notes(rows, manifest)),
        intervals=intervals,
        copies=None if left is None else len(manifest) - len(left),
        without_copies=clean[0],
        without_intervals=clean[1],
        reliability=calibration,
        coverage=covered,
    )


def _left(
    rows: Predictions, manifest: Manifest, left: list[int] | None, draws: int
) -> tuple[Scores | None, dict[str, tuple[float, float]]]:
    """The scores of the rows without a copy; None where none of them has what the model answers."""
    if not left:
        return None, {}
    try:
        return _scored(rows.take(left), manifest.take(left), draws)
    except DataError:
        return None, {}


def _scored(rows: Predictions, manifest: Manifest, draws: int) -> tuple[Scores, dict[str, tuple[float, float]]]:
    """The scores of rows that stand in the manifest's order, and the interval of each figure."""
    scores = score(rows, manifest)
    subjects = tied(manifest.table["subject"].to_pylist())
    found: dict[str, tuple[float, float]] = {}
    if scores.expression is not None:
        known = truths(manifest) >= 0
        found |= _expression_intervals(rows, manifest, known, subjects, draws)
        if any(subjects):
            found |= _all_or_none(
                rows.probabilities[known], truths(manifest)[known], scores.expression, _those(subjects, known)
            )
        else:
            found |= _wilsons(scores.expression)
        for name in _undefined(scores.expression):
            found.pop(name, None)
    if scores.agreement is not None:
        found |= _agreement_intervals(rows, manifest, subjects, draws)
    if scores.affect is not None:
        true = manifest.affect()
        known = ~np.isnan(true).any(axis=1)
        figures = affect_figures(rows.affect[known], true[known])
        found |= intervals(figures, int(known.sum()), _those(subjects, known), draws)
    return scores, found


def _those(names: Sequence[str | None], kept: np.ndarray) -> list[str | None]:
    return [name for name, keep in zip(names, kept, strict=True) if keep]


def _expression_intervals(
    rows: Predictions, manifest: Manifest, known: np.ndarray, subjects: list[str | None], draws: int
) -> dict[str, tuple[float, float]]:
    figures = expression_figures(rows.probabilities[known], manifest.targets()[known], tuple(manifest.labels))
    found = intervals(figures, int(known.sum()), _those(subjects, known), draws)
    return {name: edges for name, edges in found.items() if not np.isnan(edges[0])}


def _wilsons(scores: ExpressionScores) -> dict[str, tuple[float, float]]:
    """Wilson's intervals of the proportions: accuracy, top-2, and recall and precision of each class."""
    found = {"accuracy": scores.interval, "top2": wilson(round(scores.top2 * scores.rows), scores.rows)}
    confusion = np.array(scores.confusion)
    for i, name in enumerate(scores.labels):
        hits, true, said = (int(n) for n in (confusion[i, i], confusion[i].sum(), confusion[:, i].sum()))
        if true:
            found[f"{name} recall"] = wilson(hits, true)
        if true and said:
            found[f"{name} precision"] = wilson(hits, said)
    return found


def _all_or_none(
    p: np.ndarray, truth: np.ndarray, scores: ExpressionScores, subjects: Sequence[str | None]
) -> dict[str, tuple[float, float]]:
    """Intervals of the proportions that are 0 or 1, which draws of subjects would call sure."""
    order = np.argsort(-p, axis=1, kind="stable")
    hit, every = order[:, 0] == truth, np.ones(len(truth), bool)
    asked = {"accuracy": (hit, every), "top2": ((order[:, :2] == truth[:, None]).any(axis=1), every)}
    for i, name in enumerate(scores.labels):
        asked |= {f"{name} recall": (hit, truth == i), f"{name} precision": (hit, order[:, 0] == i)}
    found = {name: all_or_none(right[of], _those(subjects, of)) for name, (right, of) in asked.items()}
    return {name: edges for name, edges in found.items() if edges is not None}


def _undefined(scores: ExpressionScores) -> Iterator[str]:
    """Figures that these rows do not define, or only by convention: draws of the rows say nothing of them."""
    yield from (name for name in ("kappa", "alpha", "auroc", "aucpr") if np.isnan(getattr(scores, name)))
    said = np.array(scores.confusion).sum(axis=0)
    yield from (f"{name} precision" for name, times in zip(scores.labels, said, strict=True) if not times)


def _agreement_intervals(
    rows: Predictions, manifest: Manifest, subjects: list[str | None], draws: int
) -> dict[str, tuple[float, float]]:
    votes = manifest.votes()
    assert votes is not None
    known = votes.sum(axis=1) >= 2
    shares = per_row(rows.probabilities[known].argmax(axis=1), votes[known].astype(np.float64))
    found = intervals(lambda w: mean_figures(w, shares), int(known.sum()), _those(subjects, known), draws)
    return {f"agreement {name}": edges for name, edges in found.items()}


def _notes(rows: Predictions, manifest: Manifest) -> Iterator[str]:
    """The conventions that took hold on these rows, in words."""
    if gone := without_chip(manifest):
        yield f"{gone:,} more row{'s' if gone > 1 else ''} gave no chip when the pictures were prepared; nobody judges these"
    truth = truths(manifest)
    known = truth >= 0
    absent = [name for i, name in enumerate(manifest.labels) if not (truth == i).any()]
    if known.any() and absent:
        yield f"no row of {', '.join(absent)}: macro means are over the {len(manifest.labels) - len(absent)} classes with rows"
    if known.any() and not known.all():
        yield f"{int((~known).sum()):,} rows without a label are left out of expressions"
    if len(rows.ids) < FEW:
        yield f"only {len(rows.ids)} row{'s' if len(rows.ids) > 1 else ''}: too few to say much; look at the intervals"
    if known.any() and not np.isnan(rows.probabilities).any():
        yield from _of_one_class(truth[known], rows.probabilities.argmax(axis=1)[known], rows.labels.names)


def _of_one_class(truth: np.ndarray, said: np.ndarray, names: Sequence[str]) -> Iterator[str]:
    """What is not defined, or only by convention, where all labels or all answers are of one class."""
    if len(set(truth)) == 1:
        also = "; nor are kappa and alpha, since every answer is that too" if set(said) == set(truth) else ""
        yield f"every label is {names[truth[0]]}: AUROC and AUCPR are not defined{also}"
    elif len(set(said)) == 1:
        yield f"the answer is {names[said[0]]} on every row: precision of the others counts as 0, and kappa is 0"


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
    both = merge([_bare(renamed), _bare(training)])
    crops = (judged.header.crop, training.header.crop, judged.header.framing, training.header.framing)
    masked = next((crop for crop in crops if crop is not None and crop.mask != "none"), None)
    header = msgspec.structs.replace(both.header, crop=masked)  # a mask decides how near copies are compared
    found = audit(Manifest(header, both.table, both.root), progress=progress)
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
