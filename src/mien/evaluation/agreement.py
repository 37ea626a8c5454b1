"""Agreement with people: a model against one rater, and raters among themselves, from votes."""

from __future__ import annotations

import msgspec
import numpy as np

from mien.errors import DataError

__all__ = ["Agreement", "agreement", "per_row", "raters_alpha"]


class Agreement(msgspec.Struct, frozen=True):
    """How often labels agree, on rows with at least two votes for one of the labels; votes for anything else ('unknown',
    'not a face') are left out. All are shares.

    rows, raters: how many, and the mean number of votes a row.
    model: the model's label is that of a rater drawn at random.
    people: two raters drawn at random from the same row say the same.
    others: the most frequent label of all other raters is that of the rater drawn (shared equally at ties): what a panel
        achieves at the model's task.
    most: the most frequent label is that of a rater drawn: no single answer a row can agree more.
    alpha: Krippendorff's, nominal, of the raters among themselves.
    """

    rows: int
    raters: float
    model: float
    people: float
    others: float
    most: float
    alpha: float


def agreement(said: np.ndarray, votes: np.ndarray) -> Agreement | None:
    """Judge (n,) label numbers against (n, c) numbers of votes; None if no row has two.

    >>> agreement(np.array([0]), np.array([[3, 1]]))
    Agreement(rows=1, raters=4.0, model=0.75, people=0.5, others=0.75, most=0.75, alpha=0.0)
    """
    if (votes < 0).any():
        raise DataError("votes: a number below 0")
    kept = votes.sum(axis=1) >= 2
    if not kept.any():
        return None
    votes = votes[kept].astype(np.float64)
    shares = {name: float(values.mean()) for name, values in per_row(said[kept], votes).items()}
    return Agreement(rows=int(kept.sum()), raters=float(votes.sum(axis=1).mean()), alpha=raters_alpha(votes), **shares)


def per_row(said: np.ndarray, votes: np.ndarray) -> dict[str, np.ndarray]:
    """The four shares of each row, from (n,) label numbers and (n, c) votes with at least two a row."""
    n = votes.sum(axis=1)
    return {
        "model": votes[np.arange(len(votes)), said] / n,
        "people": (votes * (votes - 1)).sum(axis=1) / (n * (n - 1)),
        "others": _others(votes) / n,
        "most": votes.max(axis=1) / n,
    }


def _others(votes: np.ndarray) -> np.ndarray:
    """(n,) raters who say what most of the others say; a tie of t labels gives 1/t."""
    found = np.zeros(len(votes))
    for label in range(votes.shape[1]):
        rest = votes.copy()
        rest[:, label] -= 1
        first = rest == rest.max(axis=1, keepdims=True)
        found += votes[:, label] * first[:, label] / first.sum(axis=1)
    return found


def raters_alpha(votes: np.ndarray) -> float:
    """Krippendorff's nominal alpha of any number of raters, from (n, c) votes; rows with one vote count for nothing.

    With o_ck = sum over rows of n_c (n_k - [c = k]) / (m - 1), m votes a row: 1 - (disagreeing pairs) / (those expected), as
    in "Computing Krippendorff's Alpha-Reliability", 2011. NaN if only one label was ever chosen.
    """
    votes = votes[votes.sum(axis=1) >= 2].astype(np.float64)
    m = votes.sum(axis=1)
    agreeing = ((votes * (votes - 1)).sum(axis=1) / (m - 1)).sum()
    counts, total = votes.sum(axis=0), votes.sum()
    expected = 1 - (counts * (counts - 1)).sum() / (total * (total - 1))
    return float(1 - (1 - agreeing / total) / expected) if expected > 0 else float("nan")
