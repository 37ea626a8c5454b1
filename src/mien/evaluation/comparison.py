"""Several models on the same rows: the leaderboard, and which differences are real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import msgspec
import numpy as np

from mien.data.manifest import Manifest
from mien.errors import DataError
from mien.evaluation.intervals import holm, mcnemar
from mien.evaluation.judgement import Judgement
from mien.evaluation.metrics import aligned, truths
from mien.evaluation.predictions import Predictions
from mien.evaluation.resample import DRAWS, draws, edges
from mien.evaluation.seeds import SeedGroup, across_seeds
from mien.evaluation.weighted import affect_figures, expression_figures

__all__ = ["Comparison", "Duel", "compare_models"]

Interval = tuple[float, float]
#: Measures whose differences are drawn: in expressions, in affect.
EXPRESSION = ("accuracy", "macro_recall", "macro_f1", "ece", "nll")
AFFECT = ("valence ccc", "arousal ccc", "valence rmse", "arousal rmse")


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """Two models on the same rows: first - second.

    differences, intervals: by measure; 95 % paired bootstrap (the same draws for both, by subject where known).
    only_first, only_second: rows that only one of the two gets right.  p: McNemar's exact p; adjusted: after Holm over all pairs.
    NaN and 0 where nothing has labels.
    """

    first: str
    second: str
    differences: dict[str, float]
    intervals: dict[str, Interval]
    only_first: int = 0
    only_second: int = 0
    p: float = float("nan")
    adjusted: float = float("nan")

    @property
    def real(self) -> bool:
        """Whether accuracy really differs: adjusted p < 0.05 and the interval leaves out 0; without labels: both CCC intervals do, on one side."""
        if "accuracy" in self.intervals:
            return self.adjusted < 0.05 and _beyond(self.intervals["accuracy"])
        sides = [_beyond(self.intervals[name]) and self.intervals[name][0] > 0 for name in AFFECT[:2]]
        return all(_beyond(self.intervals[name]) for name in AFFECT[:2]) and sides[0] == sides[1]


class Comparison(msgspec.Struct, frozen=True):
    """Judgements, the best first (by accuracy; without labels by the mean CCC), a duel for each pair in that order, and the
    runs among them that differ by their seed alone."""

    judgements: tuple[Judgement, ...]
    duels: tuple[Duel, ...]
    seeds: tuple[SeedGroup, ...] = ()

    def against_best(self, name: str) -> Duel | None:
        """The duel of the best model with another one; None for the best itself."""
        best = self.judgements[0].model
        return next((duel for duel in self.duels if (duel.first, duel.second) == (best, name)), None)


def _beyond(interval: Interval) -> bool:
    return interval[0] > 0 or interval[1] < 0


def compare_models(
    judgements: Sequence[Judgement], told: Sequence[Predictions], manifests: Sequence[Manifest], count: int = DRAWS
) -> Comparison:
    """Compare judged models. Raises DataError: fewer than two, two of one name, other rows, nothing that all of them answer."""
    names = [one.model for one in judgements]
    if len(set(names)) < max(2, len(names)):
        raise DataError(f"compare: expected two or more models with names of their own, got {', '.join(names)}")
    if len({tuple(manifest.ids) for manifest in manifests}) > 1:
        raise DataError("compare: the models were judged on other rows; give all the same --labels")
    manifest = manifests[0]
    rows = [aligned(one, manifest) for one in told]
    drawn, whole = _drawn(judgements, rows, manifest, count)
    order = sorted(range(len(names)), key=lambda i: -_merit(judgements[i], "accuracy" in whole[i]))
    duels = [_duel(i, j, names, drawn, whole, rows, manifest) for i, j in combinations(order, 2)]
    adjusted = holm([duel.p for duel in duels]) if not np.isnan(duels[0].p) else [float("nan")] * len(duels)
    duels = [msgspec.structs.replace(duel, adjusted=p) for duel, p in zip(duels, adjusted, strict=True)]
    return Comparison(tuple(judgements[i] for i in order), tuple(duels), across_seeds(judgements, whole))


def _merit(one: Judgement, labels: bool) -> float:
    """What ranks: accuracy where all models answer `labels`, else the mean CCC."""
    expression, affect = one.scores.expression, one.scores.affect
    if labels and expression is not None:
        return expression.accuracy
    return -2.0 if affect is None else float(np.mean(affect.ccc))


def _drawn(
    judgements: Sequence[Judgement], rows: Sequence[Predictions], manifest: Manifest, count: int
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, float]]]:
    """Of each model, the measures over the same draws, and over the whole set."""
    truth, true = truths(manifest), manifest.affect()
    subjects = np.array(manifest.table["subject"].to_pylist(), object)
    drawn: list[dict[str, np.ndarray]] = [{} for _ in rows]
    whole: list[dict[str, float]] = [{} for _ in rows]

    def add(
        known: np.ndarray, names: Sequence[str], of: Callable[[Predictions], Callable[..., dict[str, np.ndarray]]]
    ) -> None:
        figures = [of(one.take(np.flatnonzero(known))) for one in rows]
        blocks = [[figure(w) for figure in figures] for w in draws(int(known.sum()), list(subjects[known]), count)]
        for i, figure in enumerate(figures):
            plain = figure(np.ones((1, int(known.sum()))))
            for name in names:
                drawn[i][name] = np.concatenate([block[i][name] for block in blocks])
                whole[i][name] = float(plain[name][0])

    if all(one.scores.expression is not None for one in judgements):
        known = truth >= 0
        targets = manifest.targets()[known]
        add(known, EXPRESSION, lambda one: expression_figures(one.probabilities, targets, tuple(manifest.labels)))
    if all(one.scores.affect is not None for one in judgements):
        known = ~np.isnan(true).any(axis=1)
        add(known, AFFECT, lambda one: affect_figures(one.affect, true[known]))
    if not whole[0]:
        raise DataError("compare: there is nothing that all the models answer: neither labels nor valence and arousal")
    return drawn, whole


def _duel(
    i: int,
    j: int,
    names: list[str],
    drawn: list[dict[str, np.ndarray]],
    whole: list[dict[str, float]],
    rows: Sequence[Predictions],
    manifest: Manifest,
) -> Duel:
    counts: dict[str, float | int] = {}
    if "accuracy" in whole[i]:
        truth = truths(manifest)
        right = [rows[k].probabilities.argmax(axis=1) == truth for k in (i, j)]
        first, second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        counts = {"only_first": first, "only_second": second, "p": mcnemar(first, second)}
    return Duel(
        first=names[i],
        second=names[j],
        differences={name: whole[i][name] - whole[j][name] for name in whole[i]},
        intervals={name: edges(drawn[i][name] - drawn[j][name]) for name in drawn[i]},
        **counts,  # type: ignore[arg-type]
    )
