"""Slices: a model's worth on groups of rows, and how far the groups lie apart: the fairness table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from mien.data.manifest import Manifest
from mien.errors import DataError, near_miss
from mien.evaluation.affect import score_affect
from mien.evaluation.appearance import MEASURED, UNITS, measured
from mien.evaluation.intervals import holm
from mien.evaluation.metrics import all_or_none, truths, wilson
from mien.evaluation.predictions import Predictions
from mien.evaluation.resample import DRAWS, intervals, members, tied
from mien.evaluation.weighted import affect_figures, from_confusion

__all__ = ["FEW", "Gap", "Slice", "Slicing", "column", "difference_interval", "grouped", "slice_rows"]

#: Groups with fewer rows than this are shown, but say nothing: they take no part in gaps.
FEW = 30
_PARTS, _DISTINCT, _PERMUTED = 4, 8, 4999
_UNKNOWN = "not known"

Interval = tuple[float, float]


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """One group of rows. Figures are NaN where there are no labels (or no affect); intervals as in a Judgement.

    enough: whether FEW rows have a label, or have affect, so that a figure says something.  labelled: rows with a label,
        of which a group needs FEW to take part in gaps.
    expected: the accuracy that its mix of labels alone would give: the mean, over its rows, of the whole set's recall of
        the row's label. A group whose accuracy is near it differs in what it shows, not in how well it is read.
    ccc: of (valence, arousal).
    """

    name: str
    rows: int
    enough: bool
    labelled: int = 0
    accuracy: float = math.nan
    interval: Interval = (math.nan, math.nan)
    expected: float = math.nan
    macro_recall: float = math.nan
    macro_interval: Interval = (math.nan, math.nan)
    ccc: tuple[float, float] = (math.nan, math.nan)
    ccc_intervals: tuple[Interval, Interval] = ((math.nan, math.nan), (math.nan, math.nan))


class Gap(msgspec.Struct, frozen=True):
    """Accuracy's best group minus its worst, among groups with enough rows.

    interval: 95 %, of that difference as if the two groups had been named beforehand.
    p: that groups drawn at random would differ at least so much (permutations of the rows, or of subjects that lie in one group
    each); it covers the choice of the two.  adjusted: after Holm, over all columns that were looked at.
    """

    best: str
    worst: str
    difference: float
    interval: Interval
    p: float
    adjusted: float

    @property
    def real(self) -> bool:
        """Whether chance is an unlikely explanation (adjusted p < 0.05)."""
        return self.adjusted < 0.05


class Slicing(msgspec.Struct, frozen=True):
    """The groups of one column.  unit: what was measured, for measured columns.  gap: None with fewer than two large groups."""

    column: str
    groups: tuple[Slice, ...]
    gap: Gap | None
    unit: str = ""


def slice_rows(
    predictions: Predictions, manifest: Manifest, names: Sequence[str], draws: int = DRAWS
) -> tuple[Slicing, ...]:
    """Judge rows (in the manifest's order) by groups of each named column. Raises DataError for a column that is not there."""
    truth = truths(manifest)
    judged = (truth >= 0) & ~np.isnan(predictions.probabilities).any(axis=1)
    hits = np.where(judged, predictions.probabilities.argmax(axis=1) == truth, np.nan)
    found = []
    for name in dict.fromkeys(names):
        groups = grouped(column(manifest, name))
        subjects = tied([None] * len(manifest) if name == "subject" else manifest.table["subject"].to_pylist())
        parts = [
            _slice(word, rows, predictions, manifest, hits, truth, subjects, draws) for word, rows in groups.items()
        ]
        found.append(Slicing(name, tuple(parts), _gap(name, parts, groups, hits, manifest), UNITS.get(name, "")))
    return _adjusted(found)


def column(manifest: Manifest, name: str) -> list[str | None] | np.ndarray:
    """A column's values: words, or measured numbers. `label` is the true label. Raises DataError."""
    if name == "label":
        words = (*manifest.labels.names, None)
        return [words[i] for i in truths(manifest)]
    if name in manifest.facts or name in ("subject", "split"):
        found = manifest.table[name].to_pylist()
        if not any(found):
            raise DataError(f"{manifest.header.source}: {name} is not known for any row")
        return found
    if name in MEASURED:
        return measured(manifest, name)
    known = ["label", "subject", "split", *manifest.facts, *MEASURED]
    raise DataError(f"--slice {name}: {manifest.header.source} has no such column; {near_miss(name, known)}")


def grouped(values: Sequence[str | None] | np.ndarray) -> dict[str, np.ndarray]:
    """Rows by group. Numbers with more than eight distinct values are cut into quarters of equal size; unknown comes last."""
    numbers = _numbers(values)
    if numbers is None:
        words = np.array([_UNKNOWN if value in (None, "") else str(value) for value in values], object)
        names = [*sorted(set(words) - {_UNKNOWN}), _UNKNOWN]
    else:
        words, names = _quarters(numbers)
    return {name: rows for name in names if len(rows := np.flatnonzero(words == name))}


def _numbers(values: Sequence[str | None] | np.ndarray) -> np.ndarray | None:
    """The values as numbers, if all known ones are numbers and there are many distinct ones."""
    try:
        found = np.array([math.nan if value in (None, "") else float(value) for value in values])  # type: ignore[arg-type]
    except ValueError:
        return None
    if np.isinf(found).any():  # no number to cut at
        return None
    measured_ones = isinstance(values, np.ndarray)
    return found if measured_ones or len(np.unique(found[~np.isnan(found)])) > _DISTINCT else None


def _quarters(numbers: np.ndarray) -> tuple[np.ndarray, list[str]]:
    known = numbers[~np.isnan(numbers)]
    cuts = np.unique(np.quantile(known, np.linspace(0, 1, _PARTS + 1)[1:-1]))
    which = np.searchsorted(cuts, numbers, side="right")
    words = np.full(len(numbers), _UNKNOWN, object)
    groups = [np.flatnonzero((which == part) & ~np.isnan(numbers)) for part in range(len(cuts) + 1)]
    groups = [rows for rows in groups if len(rows)]
    edges = [(numbers[rows].min(), numbers[rows].max()) for rows in groups]
    for digits in range(4, 18):  # as few as tell the groups apart
        said = [tuple(f"{x:.0f}" if x == round(x) else f"{x:.{digits}g}" for x in pair) for pair in edges]
        names = [low if low == high else f"{low} to {high}" for low, high in said]
        if len(set(names)) == len(names):
            break
    for rows, name in zip(groups, names, strict=True):
        words[rows] = name
    return words, [*names, _UNKNOWN]


def _slice(
    name: str,
    rows: np.ndarray,
    predictions: Predictions,
    manifest: Manifest,
    hits: np.ndarray,
    truth: np.ndarray,
    subjects: list[str | None],
    draws: int,
) -> Slice:
    labelled = rows[~np.isnan(hits[rows])]
    facts: dict[str, object] = {}
    if len(labelled):
        known = [subjects[row] for row in labelled]
        said = predictions.probabilities[labelled].argmax(axis=1)
        facts |= _expression(hits[labelled], truth[labelled], said, _expected(hits, truth), known, draws)
    true = manifest.affect()[rows]
    affect = score_affect(predictions.affect[rows], true)
    if affect is not None:
        there = ~np.isnan(true).any(axis=1)
        figures = affect_figures(predictions.affect[rows][there], true[there])
        edges = intervals(figures, int(there.sum()), [subjects[row] for row in rows[there]], draws)
        facts |= {"ccc": affect.ccc, "ccc_intervals": (edges["valence ccc"], edges["arousal ccc"])}
    enough = max(len(labelled), 0 if affect is None else affect.rows) >= FEW
    return Slice(name=name, rows=len(rows), enough=enough, labelled=len(labelled), **facts)  # type: ignore[arg-type]


def _expected(hits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The whole set's recall of each label."""
    known = ~np.isnan(hits)
    of = [hits[known & (truth == i)] for i in range(int(truth.max()) + 1)]
    return np.array([part.mean() if len(part) else math.nan for part in of])


def _expression(
    hits: np.ndarray, truth: np.ndarray, said: np.ndarray, recalls: np.ndarray, subjects: list[str | None], draws: int
) -> dict[str, object]:
    c = int(max(truth.max(), said.max())) + 1
    cells = np.eye(c * c)[truth * c + said]
    names = tuple(map(str, range(c)))
    edges = intervals(lambda w: from_confusion((w @ cells).reshape(-1, c, c), names), len(hits), subjects, draws)
    whole, sure = from_confusion(cells.sum(axis=0).reshape(1, c, c), names), all_or_none(hits, subjects)
    return {
        "accuracy": float(hits.mean()),
        "interval": sure or edges["accuracy"] if any(subjects) else wilson(int(hits.sum()), len(hits)),
        "expected": float(recalls[truth].mean()),
        "macro_recall": float(whole["macro_recall"][0]),
        "macro_interval": edges["macro_recall"],
    }


def _gap(
    name: str, parts: list[Slice], groups: dict[str, np.ndarray], hits: np.ndarray, manifest: Manifest
) -> Gap | None:
    large = [part for part in parts if part.labelled >= FEW and part.name != _UNKNOWN]
    if len(large) < 2:
        return None
    best, worst = max(large, key=lambda part: part.accuracy), min(large, key=lambda part: part.accuracy)
    edges = difference_interval(best.accuracy, best.interval, worst.accuracy, worst.interval)
    subjects = manifest.table["subject"].to_pylist() if name != "subject" else None
    p = _chance([groups[part.name] for part in large], hits, subjects)
    return Gap(best.name, worst.name, best.accuracy - worst.accuracy, edges, p, p)


def difference_interval(a: float, of_a: Interval, b: float, of_b: Interval) -> Interval:
    """The 95 % interval of a - b, independent, from the interval of each: R. G. Newcombe's method 10 (Statistics in Medicine 17, 1998)
    where these are Wilson's.

    >>> edges = difference_interval(56 / 70, (0.6921, 0.8769), 48 / 80, (0.4904, 0.7004))
    >>> [round(edge, 3) for edge in edges]
    [0.053, 0.334]
    """
    low = (a - b) - math.hypot(a - of_a[0], of_b[1] - b)
    high = (a - b) + math.hypot(of_a[1] - a, b - of_b[0])
    return low, high


def _chance(groups: list[np.ndarray], hits: np.ndarray, subjects: list[str | None] | None, seed: int = 0) -> float:
    """The share of random groupings whose accuracies spread (as chi-squared) at least as far."""
    groups = [rows[~np.isnan(hits[rows])] for rows in groups]
    rng = np.random.default_rng(seed)
    sizes = np.array([len(rows) for rows in groups])
    got = np.array([hits[rows].sum() for rows in groups])
    drawn = _by_subject(groups, hits, subjects, rng) if subjects and any(subjects) else None
    if drawn is None:
        drawn = sizes, rng.multivariate_hypergeometric(sizes, int(got.sum()), _PERMUTED, method="marginals")
    spread = _spread(got[None], sizes, got.sum() / sizes.sum())
    chance = _spread(drawn[1], drawn[0], got.sum() / sizes.sum())
    return float((1 + (chance >= spread - 1e-9).sum()) / (1 + _PERMUTED))


def _spread(hits: np.ndarray, sizes: np.ndarray, share: float) -> np.ndarray:
    return ((hits - sizes * share) ** 2 / np.maximum(sizes, 1)).sum(axis=-1)


def _by_subject(
    groups: list[np.ndarray], hits: np.ndarray, subjects: list[str | None], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Sizes and hits of random groupings of whole subjects; None if a subject has rows in two groups."""
    rows = np.concatenate(groups)
    of = np.concatenate([np.full(len(part), i) for i, part in enumerate(groups)])
    units = members(len(rows), [subjects[row] for row in rows])
    if any(len(set(of[unit])) > 1 for unit in units):
        return None
    labels = np.array([of[unit[0]] for unit in units])
    size = np.array([len(unit) for unit in units], np.float64)
    right = np.array([hits[rows[unit]].sum() for unit in units])
    mixed = rng.permuted(np.tile(labels, (_PERMUTED, 1)), axis=1)
    inside = [(mixed == i).astype(np.float64) for i in range(len(groups))]
    return np.stack([m @ size for m in inside], axis=1), np.stack([m @ right for m in inside], axis=1)


def _adjusted(found: list[Slicing]) -> tuple[Slicing, ...]:
    """Holm's correction over the columns that have a gap."""
    with_gap = [one.gap for one in found if one.gap is not None]
    ps = iter(holm([gap.p for gap in with_gap]))
    return tuple(
        one
        if one.gap is None
        else msgspec.structs.replace(one, gap=msgspec.structs.replace(one.gap, adjusted=next(ps)))
        for one in found
    )
