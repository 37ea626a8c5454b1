"""How sure a figure is, and whether a difference between two models on the same rows is real."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from mien.evaluation.resample import edges, members

__all__ = ["Difference", "block_bootstrap", "bootstrap", "compare_rows", "holm", "mcnemar", "memory"]

#: A figure of the rows with these indices.
Figure = Callable[[np.ndarray], float]


def bootstrap(
    figure: Figure, rows: int, groups: Sequence[str | None] | None = None, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of a figure over rows drawn with replacement (Efron 1979).

    groups: a name for each row; rows of one name (a subject) are drawn together; rows without one stand alone.
    Draws on which the figure is NaN are left out; NaN if all are.
    """
    rng = np.random.default_rng(seed)
    parts = members(rows, groups)
    figures = []
    for _ in range(draws):
        drawn = rng.integers(0, len(parts), len(parts))
        figures.append(figure(np.concatenate([parts[i] for i in drawn])))
    return edges(np.array(figures))


class Difference(msgspec.Struct, frozen=True):
    """first - second on the same rows: accuracy's difference, its 95 % bootstrap interval, and McNemar's exact p.

    only_first, only_second: rows that only one of the two gets right.  real: the interval leaves out 0 and p < 0.05.
    """

    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p: float

    @property
    def real(self) -> bool:
        """Whether both tests call the difference real."""
        return self.p < 0.05 and (self.interval[0] > 0 or self.interval[1] < 0)


def compare_rows(
    first: np.ndarray, second: np.ndarray, groups: Sequence[str | None] | None = None, draws: int = 1000, seed: int = 0
) -> Difference:
    """Compare two models by (n,) booleans: which rows each gets right."""
    gain = first.astype(np.float64) - second.astype(np.float64)
    only_first, only_second = int((gain > 0).sum()), int((gain < 0).sum())
    interval = bootstrap(lambda rows: float(gain[rows].mean()), len(gain), groups, draws, seed)
    return Difference(float(gain.mean()), interval, only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test (Psychometrika 12, 1947), from the rows that one of two models gets right.

    >>> round(mcnemar(10, 2), 6)
    0.038574
    """
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """p values after Holm's correction for having looked at all of them (Scandinavian Journal of Statistics 6, 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    found, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        found[i] = largest
    return found


def block_bootstrap(
    values: np.ndarray, block: int, draws: int = 1000, seed: int = 0, weights: np.ndarray | None = None
) -> np.ndarray:
    """95 % percentile intervals (2, k) of the means of a series (n, k) whose neighbours are alike.

    Blocks of `block` rows, from any row on and from the end round to the start, are drawn until there are n (the circular block
    bootstrap: D. N. Politis, J. P. Romano, 1992). NaN where there are fewer than four blocks: too little to say.

    weights: (n,), how much each row counts in a mean; alike by default.
    """
    n, k = values.shape
    each = np.ones(n) if weights is None else weights
    values = np.concatenate([values * each[:, None], each[:, None]], axis=1)
    block = max(1, min(block, n))
    if n < 4 * block:
        return np.full((2, k), np.nan)
    sums = np.concatenate(
        [np.zeros((1, k + 1)), np.cumsum(np.concatenate([values, values[:block]]), axis=0, dtype=np.float64)]
    )
    starts = np.random.default_rng(seed).integers(0, n, (draws, -(-n // block)))
    lengths = np.full(starts.shape[1], block)
    lengths[-1] = n - block * (len(lengths) - 1)
    drawn = np.stack([(sums[row + lengths] - sums[row]).sum(axis=0) for row in starts])
    return np.percentile(drawn[:, :-1] / drawn[:, -1:], [2.5, 97.5], axis=0)


def memory(values: np.ndarray, most: int) -> int:
    """After how many rows the columns of a series (n, k) have forgotten: the first lag at which no autocorrelation is above
    1/e; at most `most`."""
    centred = values - values.mean(axis=0)
    power = (centred**2).sum(axis=0)
    alive = power > 1e-9 * max(len(values), 1)
    lag = 0
    while alive.any() and lag < most:
        lag += max(1, lag // 8)
        alive &= (centred[lag:] * centred[: len(centred) - lag]).sum(axis=0) > power / np.e
    return min(lag, most)
