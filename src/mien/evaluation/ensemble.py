"""Ensembles: the mean of several models' answers, and how much each of them counts.

Weights are chosen on rows that the caller names; a figure on these same rows is optimistic.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from mien.data.manifest import Manifest
from mien.errors import DataError
from mien.evaluation.intervals import Difference, compare_rows
from mien.evaluation.metrics import ExpressionScores, all_or_none, score_expression, wilson
from mien.evaluation.predictions import Predictions
from mien.evaluation.resample import intervals, tied
from mien.evaluation.weighted import mean_figures
from mien.spec import Mean

__all__ = [
    "EnsembleScores",
    "MemberScores",
    "averaged",
    "choose_weights",
    "cross_weighted",
    "fitted_weights",
    "greedy_weights",
    "judge_ensemble",
    "mean_answer",
    "stacked",
]

#: What a probability is at least before its logarithm is taken.
LEAST = 1e-12


def mean_answer(answers: np.ndarray, weights: np.ndarray, logits: bool = False) -> np.ndarray:
    """(members, n, c) probabilities and (members,) weights of sum 1 to the (n, c) answer of the ensemble.

    The mean of probabilities, or the softmax of the mean of their logarithms: as a softmax does not change when all of a
    row's logits do, that is the mean of the members' logits, each over its own temperature.

    >>> mean_answer(np.array([[[0.9, 0.1]], [[0.1, 0.9]]]), np.array([0.5, 0.5]), logits=True).round(3).tolist()
    [[0.5, 0.5]]
    """
    if not logits:
        return np.tensordot(weights, answers, 1)
    logs = np.tensordot(weights, np.log(np.clip(answers, LEAST, 1)), 1)
    mean = np.exp(logs - logs.max(axis=1, keepdims=True))
    return mean / mean.sum(axis=1, keepdims=True)


def stacked(parts: Sequence[Predictions], names: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """(members, n, c) probabilities and (members, n, 2) affect, rows as in the first part.

    names: of the members, for messages. Raises DataError: other labels, other rows, no probabilities.
    """
    first, names = parts[0], names or [f"member {number}" for number in range(1, len(parts) + 1)]
    probabilities, affect = [], []
    for part, name in zip(parts, names, strict=True):
        if part.labels != first.labels:
            raise DataError(
                f"ensemble: {name} answers other labels ({', '.join(part.labels)}) than {names[0]} ({', '.join(first.labels)})"
            )
        at = {row: number for number, row in enumerate(part.ids)}
        if set(at) != set(first.ids):
            raise DataError(f"ensemble: {name} answers other rows ({len(at):,}) than {names[0]} ({len(first.ids):,})")
        if np.isnan(part.probabilities).any():
            raise DataError(f"ensemble: {name} answers valence and arousal alone; members need probabilities")
        order = [at[row] for row in first.ids]
        probabilities.append(part.probabilities[order])
        affect.append(part.affect[order])
    return np.stack(probabilities).astype(np.float64), np.stack(affect).astype(np.float64)


def averaged(
    parts: Sequence[Predictions],
    weights: Sequence[float] | np.ndarray | None = None,
    logits: bool = False,
    names: Sequence[str] = (),
) -> Predictions:
    """An ensemble: the (weighted) mean of probabilities or of logits (see mean_answer), and of affect.

    Rows are in the order of the first part; members of weight 0 do not count. Raises DataError: see stacked.
    """
    probabilities, affect = stacked(parts, names)
    share = np.ones(len(parts)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    there = share > 0
    mean = mean_answer(probabilities[there], share[there], logits)
    return Predictions(parts[0].labels, parts[0].ids, mean, np.tensordot(share[there], affect[there], 1))


def fitted_weights(answers: np.ndarray, truth: np.ndarray, logits: bool = False) -> np.ndarray:
    """The (members,) weights, none negative, of sum 1, with the least mean -log probability of the (n,) true classes.

    Convex for either mean, so this is the least there is, as far as the solver (SciPy's SLSQP) goes.
    """
    from scipy.optimize import minimize

    count = len(answers)
    found = minimize(
        lambda share: _loss(answers, share, truth, logits),
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda share: share.sum() - 1},
        options={"ftol": 1e-9, "maxiter": 500},
    )
    share = np.where(found.x < 1e-3, 0, found.x)
    return share / share.sum()


def greedy_weights(answers: np.ndarray, truth: np.ndarray, logits: bool = False, rounds: int = 50) -> np.ndarray:
    """The (members,) weights of sum 1 by greedy selection with replacement.

    R. Caruana et al., "Ensemble selection from libraries of models", ICML 2004: from nothing, again and again the member is
    added (a second time, too) that brings the mean answer nearest to the truth, here by the mean -log probability of the
    true class; the best of the `rounds` bags is kept, the smallest of equal ones. Weights are counts.
    """
    counts = np.zeros(len(answers))
    best, kept = np.inf, counts
    for number in range(1, rounds + 1):
        tried = [_loss(answers, (counts + one) / number, truth, logits) for one in np.eye(len(answers))]
        counts = counts + np.eye(len(answers))[int(np.argmin(tried))]
        if min(tried) < best - 1e-12:
            best, kept = min(tried), counts
    return kept / kept.sum()


def _loss(answers: np.ndarray, share: np.ndarray, truth: np.ndarray, logits: bool) -> float:
    mean = mean_answer(answers, share, logits)
    return float(-np.log(np.clip(mean[np.arange(len(truth)), truth], LEAST, 1)).mean())


class MemberScores(msgspec.Struct, frozen=True):
    """A member, or the ensemble itself: its weight, and the figures of mien.evaluation.metrics.ExpressionScores."""

    name: str
    weight: float
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    macro_recall: float
    nll: float
    ece: float


class EnsembleScores(msgspec.Struct, frozen=True):
    """What an ensemble is worth beside its members, on the same rows.

    mean: 'probabilities' or 'logits'.  chosen_on: the rows by which weights were chosen; empty if by none.
    optimistic: these are the rows that judge.  best: the member with the highest accuracy on the rows that judge.
    gain: the ensemble against that member (see mien.evaluation.intervals.Difference).  real: whether both tests say so.
    """

    data: str
    rows: int
    mean: Mean
    chosen_on: str
    optimistic: bool
    members: list[MemberScores]
    ensemble: MemberScores
    best: str
    gain: Difference
    real: bool


def choose_weights(
    how: str, told: Sequence[Predictions], manifest: Manifest, names: Sequence[str], logits: bool
) -> np.ndarray:
    """Weights 'fitted' or 'greedy' by the labelled rows of a manifest. Raises DataError: see stacked; no labelled row."""
    truth, known = _truth(manifest)
    said = stacked(told, names)[0][:, known]
    return (fitted_weights if how == "fitted" else greedy_weights)(said, truth, logits)


def cross_weighted(
    how: str, told: Sequence[Predictions], manifest: Manifest, names: Sequence[str], logits: bool, seed: int = 0
) -> Predictions:
    """The ensemble's answers where each half of the rows is answered with weights chosen on the other half.

    So that one split both chooses and judges, honestly. Halves are drawn by subject where subjects are known; the labelled
    rows of each choose. Raises DataError: see choose_weights; the labelled rows are all of one subject.
    """
    subjects = [name or row for row, name in enumerate(manifest.table["subject"].to_pylist())]
    groups = sorted({name for name, known in zip(subjects, _truth(manifest)[1], strict=True) if known}, key=str)
    if len(groups) < 2:
        raise DataError(
            f"{manifest.header.source}: all labelled rows are of one subject, which no half can judge apart from the other; "
            "choose weights on another split (mien ensemble --select)"
        )
    first = set(np.random.default_rng(seed).permutation(len(groups))[: len(groups) // 2].tolist())
    place = {name: number in first for number, name in enumerate(groups)}
    side = np.array([place.get(name, False) for name in subjects])
    answers = averaged(told, None, logits, names)
    probabilities, affect = np.array(answers.probabilities), np.array(answers.affect)
    for half in (True, False):
        choosing = np.flatnonzero(side == half)
        parts = [part.take(choosing.tolist()) for part in told]
        share = choose_weights(how, parts, manifest.take(choosing), names, logits)
        mean = averaged(told, share, logits, names)
        probabilities[side != half], affect[side != half] = mean.probabilities[side != half], mean.affect[side != half]
    return Predictions(answers.labels, answers.ids, probabilities, affect)


def _truth(manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """(k,) true classes of the k labelled rows, and (n,) which rows these are. Raises DataError."""
    targets = manifest.targets()
    known = ~np.isnan(targets).any(axis=1)
    if not known.any():
        raise DataError(f"{manifest.header.source}: no row has a label")
    return targets[known].argmax(axis=1), known


def judge_ensemble(
    told: Sequence[Predictions],
    names: Sequence[str],
    weights: np.ndarray,
    manifest: Manifest,
    logits: bool = False,
    chosen_on: str = "",
    optimistic: bool = False,
) -> tuple[EnsembleScores, Predictions]:
    """The figures, and the ensemble's answers. told: rows in the manifest's order (mien.evaluation.metrics.aligned).

    Raises DataError: labels differ, no row has a label.
    """
    mean = averaged(told, weights, logits, names)
    truth, known = _truth(manifest)
    scores = [score_expression(part, manifest) for part in (*told, mean)]
    best = int(np.argmax([one.accuracy for one in scores[:-1]]))
    right = [part.probabilities[known].argmax(axis=1) == truth for part in (mean, told[best])]
    subjects = tied([name for name, k in zip(manifest.table["subject"].to_pylist(), known, strict=True) if k])
    edges = [_interval(part.probabilities[known].argmax(axis=1) == truth, subjects) for part in (*told, mean)]
    gain = compare_rows(right[0], right[1], subjects)
    found = EnsembleScores(
        data=manifest.header.source,
        rows=len(truth),
        mean="logits" if logits else "probabilities",
        chosen_on=chosen_on,
        optimistic=optimistic,
        members=[_figures(*four) for four in zip(names, weights, scores[:-1], edges[:-1], strict=True)],
        ensemble=_figures("ensemble", 1.0, scores[-1], edges[-1]),
        best=names[best],
        gain=gain,
        real=gain.real,
    )
    return found, mean


def _interval(right: np.ndarray, subjects: list[str | None]) -> tuple[float, float]:
    """Of accuracy, as mien.evaluation.judgement gives it: Wilson's, or by subject where one has several rows."""
    if any(subjects):
        drawn = intervals(lambda w: mean_figures(w, {"accuracy": right}), len(right), subjects)
        return all_or_none(right, subjects) or drawn["accuracy"]
    return wilson(int(right.sum()), len(right))


def _figures(name: str, weight: float, scores: ExpressionScores, interval: tuple[float, float]) -> MemberScores:
    return MemberScores(
        name,
        round(float(weight), 4),
        scores.accuracy,
        interval,
        scores.macro_f1,
        scores.macro_recall,
        scores.nll,
        scores.ece,
    )
