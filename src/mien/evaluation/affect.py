"""Measures of valence and arousal, over the whole set at once, as the AffectNet paper has them (arXiv:1708.03985).

All take two (n,) float series: what was said, and what is true. NaN in either is an error: leave such rows out first.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from mien.errors import DataError

__all__ = ["AffectScores", "concordance", "correlation", "mae", "quadrants", "rmse", "sagr", "score_affect"]


def rmse(said: np.ndarray, true: np.ndarray) -> float:
    """Root of the mean squared difference.

    >>> rmse(np.array([0.0, 0.0]), np.array([3.0, 4.0])).__round__(4)
    3.5355
    """
    return float(np.sqrt(np.mean((said - true) ** 2)))


def mae(said: np.ndarray, true: np.ndarray) -> float:
    """Mean absolute difference."""
    return float(np.mean(np.abs(said - true)))


def correlation(said: np.ndarray, true: np.ndarray) -> float:
    """Pearson's correlation; NaN if a series is constant."""
    if np.ptp(said) == 0 or np.ptp(true) == 0:
        return float("nan")
    return float(np.corrcoef(said, true)[0, 1])


def sagr(said: np.ndarray, true: np.ndarray) -> float:
    """Share of rows whose signs agree. The sign of exactly 0 is 0: it agrees with 0 alone (many neutral rows are exactly 0).

    >>> sagr(np.array([0.5, -0.5, 0.0, 0.1]), np.array([0.1, 0.1, 0.0, 0.0]))
    0.5
    """
    return float(np.mean(np.sign(said) == np.sign(true)))


def concordance(said: np.ndarray, true: np.ndarray) -> float:
    """Lin's concordance: 2 cov / (var + var + (mean - mean)^2), population variance (Lin, Biometrics 45(1), 1989).

    0 if one series is constant; NaN if both are, and equal.

    >>> concordance(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    1.0
    """
    spread = np.var(said) + np.var(true) + (np.mean(said) - np.mean(true)) ** 2
    return float(2 * np.mean((said - said.mean()) * (true - true.mean())) / spread) if spread else float("nan")


def quadrants(said: np.ndarray, true: np.ndarray) -> float:
    """Share of rows in the same quadrant: (n, 2) valence and arousal each; 0 counts as positive."""
    return float(np.mean(((said >= 0) == (true >= 0)).all(axis=1)))


class AffectScores(msgspec.Struct, frozen=True):
    """rows with known affect; each measure as (valence, arousal); the share of rows in the right quadrant."""

    rows: int
    rmse: tuple[float, float]
    mae: tuple[float, float]
    corr: tuple[float, float]
    sagr: tuple[float, float]
    ccc: tuple[float, float]
    quadrant: float


def score_affect(said: np.ndarray, true: np.ndarray, ids: Sequence[str] | None = None) -> AffectScores | None:
    """Judge (n, 2) answers against (n, 2) annotations; None where no row has both.

    Rows whose annotation is NaN are left out. Raises DataError for an answer that is NaN where the truth is known, or
    outside [-1, 1].  ids: of the rows, for the message.
    """
    known = ~np.isnan(true).any(axis=1)
    silent = np.flatnonzero(known & np.isnan(said).any(axis=1))
    said, true = said[known].astype(np.float64), true[known].astype(np.float64)
    if not len(true) or np.isnan(said).all():
        return None
    if np.isnan(said).any():
        where = f"row {silent[0]}" if ids is None else ids[silent[0]]
        raise DataError(
            f"predictions: valence or arousal of {where} is not a number, and of {len(silent):,} annotated rows in all; "
            "answer all of them, or none"
        )
    if np.abs(said).max() > 1 + 1e-6:
        raise DataError(f"predictions: valence or arousal of {said[np.abs(said).argmax() // 2]}; expected -1 to 1")

    def both(measure):  # type: ignore[no-untyped-def]
        return measure(said[:, 0], true[:, 0]), measure(said[:, 1], true[:, 1])

    return AffectScores(
        len(true), both(rmse), both(mae), both(correlation), both(sagr), both(concordance), quadrants(said, true)
    )
