"""Times calls against each other on a machine that is never quiet."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

__all__ = ["times"]


def times(calls: dict[str, Callable[[], object]], rounds: int = 60, before: int = 0) -> dict[str, float]:
    """Median milliseconds of each call, taken in turns.

    before: untimed calls of the same kind right before each timed one. With none, each comes after the one before it in `calls`;
    with some, it is one of many in a row.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(before):
                call()
            start = time.perf_counter()
            call()
            taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}
