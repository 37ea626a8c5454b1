"""How right predicted expressions are. Pure functions; scikit-learn where it defines the measure.

Conventions: the truth of a soft target is its largest entry (the first at a tie); macro means are over the classes that
have rows; a class that is never said has precision 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from mien.data.manifest import Manifest
from mien.errors import DataError
from mien.evaluation.affect import AffectScores, score_affect
from mien.evaluation.agreement import Agreement, agreement
from mien.evaluation.predictions import Predictions

__all__ = [
    "BINS",
    "EPSILON",
    "ClassScores",
    "ExpressionScores",
    "Scores",
    "all_or_none",
    "expected_calibration_error",
    "macro_auroc",
    "macro_f1",
    "nominal_alpha",
    "reliability",
    "score",
    "score_expression",
    "truths",
    "wilson",
]

#: Equal-width bins of the top probability, for calibration.
BINS = 15
#: Probabilities below this count as this much in logarithms.
EPSILON = 1e-12


class ClassScores(msgspec.Struct, frozen=True):
    """One class: rows that have it, precision, recall, F1."""

    rows: int
    precision: float
    recall: float
    f1: float


class ExpressionScores(msgspec.Struct, frozen=True):
    """What a set of predictions is worth.

    interval: 95 % Wilson interval of accuracy.  macro_*: means over the classes that have rows; macro recall is what others
    call balanced accuracy.  kappa: Cohen's.  alpha: Krippendorff's, nominal, model and truth as two raters.
    auroc, aucpr: one class against the rest, macro mean; NaN with one class.  top2: the truth is among the two likeliest.
    nll: mean -log probability of the truth.  brier: mean squared distance to the one-hot truth.
    cross_entropy: mean against the target distributions as given (votes), in nats.
    classes: per class with rows.  confusion: rows true, columns predicted, in the order of `labels`.
    """

    rows: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    weighted_f1: float
    macro_recall: float
    macro_precision: float
    kappa: float
    alpha: float
    auroc: float
    aucpr: float
    top2: float
    ece: float
    nll: float
    brier: float
    cross_entropy: float
    labels: tuple[str, ...]
    classes: dict[str, ClassScores]
    confusion: list[list[int]]

    @property
    def recalls(self) -> dict[str, float]:
        """Recall per class that has rows."""
        return {name: found.recall for name, found in self.classes.items()}


class Scores(msgspec.Struct, frozen=True):
    """Both judgements; either is None where the data or the model have nothing to compare.

    affect_by: affect on the rows of each true label.  agreement: with people, where the data hold their votes.
    """

    expression: ExpressionScores | None
    affect: AffectScores | None
    affect_by: dict[str, AffectScores] = {}
    agreement: Agreement | None = None


def score(predictions: Predictions, manifest: Manifest) -> Scores:
    """Judge expressions and affect against a manifest. Raises DataError: ids or labels differ, nothing can be judged."""
    rows = aligned(predictions, manifest)
    targets = manifest.targets()
    expression = None
    if not np.isnan(targets).all() and not np.isnan(rows.probabilities).all():
        expression = score_expression(predictions, manifest)
    affect = score_affect(rows.affect, manifest.affect(), rows.ids)
    if expression is None and affect is None:
        raise DataError(f"{manifest.header.source}: no row has a label or affect that the model answers")
    votes = manifest.votes()
    people = None if expression is None or votes is None else agreement(rows.probabilities.argmax(axis=1), votes)
    return Scores(expression, affect, {} if affect is None else _affect_by(rows.affect, manifest), people)


def _affect_by(said: np.ndarray, manifest: Manifest) -> dict[str, AffectScores]:
    """Affect on the rows of each true label that has annotations."""
    truth, true = truths(manifest), manifest.affect()
    found = {name: score_affect(said[truth == i], true[truth == i]) for i, name in enumerate(manifest.labels)}
    return {name: scores for name, scores in found.items() if scores is not None}


def truths(manifest: Manifest) -> np.ndarray:
    """(n,) the number of each row's label, by the target's largest entry; -1 where it has none."""
    targets = manifest.targets()
    return np.where(np.isnan(targets).any(axis=1), -1, np.nan_to_num(targets).argmax(axis=1))


def aligned(predictions: Predictions, manifest: Manifest) -> Predictions:
    """The predictions in the manifest's order. Raises DataError if ids are missing or foreign."""
    at = {name: row for row, name in enumerate(predictions.ids)}
    wanted = manifest.ids
    missing = [name for name in wanted if name not in at]
    if missing or len(at) != len(wanted):
        foreign = sorted(set(at) - set(wanted))
        raise DataError(
            f"predictions for {len(at)} rows, the data has {len(wanted)}: {len(missing)} rows have none"
            f"{f' (such as {missing[0]})' if missing else ''}, {len(foreign)} are of other rows"
            f"{f' (such as {foreign[0]})' if foreign else ''}"
        )
    return predictions.take([at[name] for name in wanted])


def score_expression(predictions: Predictions, manifest: Manifest) -> ExpressionScores:
    """Judge predictions against a manifest whose targets are hard or soft; unlabelled rows are left out.

    The two must hold the same ids, in any order, and the same labels. Raises DataError.
    """
    if list(predictions.labels) != list(manifest.labels):
        raise DataError(
            f"the model has the labels {', '.join(predictions.labels)}; the data {', '.join(manifest.labels)}; "
            "choose a common set with --labels, or the same pictures' other labels with --source (fer2013 beside ferplus)"
        )
    targets = manifest.targets()
    known = ~np.isnan(targets).any(axis=1)
    if not known.any():
        raise DataError(f"{manifest.header.source}: no row has a label")
    return judge_rows(aligned(predictions, manifest).probabilities[known], targets[known], tuple(manifest.labels))


def judge_rows(probabilities: np.ndarray, targets: np.ndarray, labels: tuple[str, ...]) -> ExpressionScores:
    """Judge (n, c) probabilities against (n, c) target distributions without NaN."""
    probabilities = probabilities.astype(np.float64)
    truth, said = targets.argmax(axis=1), probabilities.argmax(axis=1)
    there = sorted(set(truth.tolist()))
    precision, recall, f1, support = precision_recall_fscore_support(truth, said, labels=there, zero_division=0)
    hits, count = int((truth == said).sum()), len(truth)
    onehot = np.eye(len(labels))[truth]
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    logs = np.log(np.clip(probabilities, EPSILON, 1))
    return ExpressionScores(
        rows=count,
        accuracy=hits / count,
        interval=wilson(hits, count),
        macro_f1=float(np.mean(f1)),
        weighted_f1=float(np.average(f1, weights=support)),
        macro_recall=float(np.mean(recall)),
        macro_precision=float(np.mean(precision)),
        kappa=_kappa(truth, said),
        alpha=nominal_alpha(truth, said),
        auroc=_one_against_rest(roc_auc_score, onehot, probabilities, there),
        aucpr=_one_against_rest(average_precision_score, onehot, probabilities, there),
        top2=float((order == truth[:, None]).any(axis=1).mean()),
        ece=expected_calibration_error(probabilities, truth),
        nll=0.0 - float(logs[np.arange(count), truth].mean()),
        brier=float(((probabilities - onehot) ** 2).sum(axis=1).mean()),
        cross_entropy=0.0 - float((targets * logs).sum(axis=1).mean()),
        labels=labels,
        classes={
            labels[i]: ClassScores(int(n), float(p), float(r), float(f))
            for i, n, p, r, f in zip(there, support, precision, recall, f1, strict=True)
        },
        confusion=confusion_matrix(truth, said, labels=range(len(labels))).tolist(),
    )


def _kappa(truth: np.ndarray, said: np.ndarray) -> float:
    one = len(set(truth.tolist()) | set(said.tolist())) == 1
    return float("nan") if one else float(cohen_kappa_score(truth, said))


def _one_against_rest(measure, onehot: np.ndarray, probabilities: np.ndarray, there: list[int]) -> float:  # type: ignore[no-untyped-def]
    if len(there) < 2:
        return float("nan")
    return float(np.mean([measure(onehot[:, i], probabilities[:, i]) for i in there]))


def nominal_alpha(first: np.ndarray, second: np.ndarray) -> float:
    """Krippendorff's alpha of two raters on nominal data without gaps: 1 - observed / expected disagreement.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. With N = 2n values, of which n_c are c:
    expected disagreement is 1 - sum n_c (n_c - 1) / (N (N - 1)). NaN if there is only one value.

    >>> round(nominal_alpha(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])), 4)
    0.5333
    """
    counts = np.unique(np.concatenate([first, second]), return_counts=True)[1].astype(np.float64)
    total = counts.sum()
    expected = 1 - (counts * (counts - 1)).sum() / (total * (total - 1))
    return float("nan") if expected == 0 else float(1 - np.mean(first != second) / expected)


def macro_f1(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean F1 over the classes that have rows, from (n,) class indices."""
    return float(f1_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0))


def macro_auroc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean area under the ROC curve, one class against the rest, over the classes that have rows; NaN with one class.

    truth: (n,) class indices.  probabilities: (n, c).

    >>> macro_auroc(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]))
    1.0
    """
    onehot = np.eye(probabilities.shape[1])[truth]
    return _one_against_rest(roc_auc_score, onehot, probabilities, sorted(set(truth.tolist())))


def wilson(hits: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (E. B. Wilson, JASA 22, 1927).

    >>> [round(edge, 4) for edge in wilson(85, 100)]
    [0.7672, 0.9069]
    """
    share = hits / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    return max(0.0, middle - half), min(1.0, middle + half)


def all_or_none(hits: np.ndarray, groups: Sequence[str | None]) -> tuple[float, float] | None:
    """Wilson's interval of (n,) hits that are all alike, each group of rows counted once; None where they are not.

    Draws of such rows cannot vary: their bootstrap would be sure. groups: a name for each row; one without stands alone.

    >>> [round(edge, 3) for edge in all_or_none(np.array([False] * 4), ["a", "a", "a", None])]
    [0.0, 0.658]
    """
    if not len(hits) or 0 < hits.sum() < len(hits):
        return None
    count = len({name or row for row, name in enumerate(groups)})
    return wilson(count if hits[0] else 0, count)


def reliability(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, rows) of each equal-width bin of the top probability that has rows, rising."""
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        (float(confidence[which == b].mean()), float(hit[which == b].mean()), int((which == b).sum()))
        for b in np.unique(which)
    ]


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
    """Mean |accuracy - confidence| over equal-width bins of the top probability, weighted by rows (Guo et al. 2017).

    >>> expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]))
    0.0
    """
    parts = reliability(probabilities, truth, bins)
    return float(sum(abs(hit - said) * rows for said, hit, rows in parts) / len(truth))
