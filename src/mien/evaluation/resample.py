"""The bootstrap for many figures at once: each draw is a weight for every row, and a figure is a function of weights.

Drawing rows with replacement is the same as weighting each row by how often it was drawn. Figures that are sums over rows
then become matrix products, so that every figure of a report gets its interval in about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

__all__ = ["DRAWS", "Figures", "draws", "edges", "intervals", "members", "tied"]

DRAWS = 1000
#: (k, n) weights of rows -> (k,) values of each figure by name; NaN where a draw does not define it.
Figures = Callable[[np.ndarray], Mapping[str, np.ndarray]]
_CELLS = 4_000_000


def draws(
    rows: int, groups: Sequence[str | None] | None = None, count: int = DRAWS, seed: int = 0
) -> Iterator[np.ndarray]:
    """Blocks of (k, rows) weights: how often each row was drawn, for `count` draws in all.

    groups: a name for each row; rows of one name (a subject) are drawn together; rows without one stand alone.
    """
    rng = np.random.default_rng(seed)
    of = _group_of(rows, groups)
    total = int(of.max()) + 1 if rows else 0
    block = max(1, _CELLS // max(rows, 1))
    for start in range(0, count, block):
        size = min(block, count - start)
        drawn = [np.bincount(rng.integers(0, total, total), minlength=total) for _ in range(size)]
        yield np.stack(drawn)[:, of].astype(np.float64)


def tied(names: Sequence[str | None]) -> list[str | None]:
    """The names; None for each where none stands on two rows: such rows are independent, and nothing is drawn together."""
    known = [name for name in names if name]
    return list(names) if len(set(known)) < len(known) else [None] * len(names)


def members(rows: int, groups: Sequence[str | None] | None = None) -> list[np.ndarray]:
    """The rows of each group, in the order of their first rows."""
    of = _group_of(rows, groups)
    order = np.argsort(of, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of[order])) + 1)


def _group_of(rows: int, groups: Sequence[str | None] | None) -> np.ndarray:
    """(rows,) the number of each row's group, counted by first appearance."""
    if groups is None or not any(groups):
        return np.arange(rows)
    known: dict[object, int] = {}
    return np.array([known.setdefault(name or row, len(known)) for row, name in enumerate(groups)])


def edges(values: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of drawn values; draws on which the figure is NaN are left out; NaN if all are."""
    there = values[~np.isnan(values)]
    if not len(there):
        return float("nan"), float("nan")
    low, high = np.percentile(there, [2.5, 97.5])
    return float(low), float(high)


def intervals(
    figures: Figures, rows: int, groups: Sequence[str | None] | None = None, count: int = DRAWS, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The 95 % percentile interval (Efron 1979) of each figure over rows, or groups of rows, drawn with replacement."""
    found: dict[str, list[np.ndarray]] = {}
    for weights in draws(rows, groups, count, seed):
        for name, values in figures(weights).items():
            found.setdefault(name, []).append(values)
    return {name: edges(np.concatenate(parts)) for name, parts in found.items()}
