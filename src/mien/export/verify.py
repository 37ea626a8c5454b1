"""The comparison every export ends in: the same chips through what is shipped from and what is shipped."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from mien.errors import ExportError
from mien.runtime.sessions import FullSession

__all__ = ["Allowed", "Difference", "compare", "refuse"]

_BATCH = 64


class Allowed(msgspec.Struct, frozen=True):
    """What a target may change; beyond it there is no file.

    largest: difference of a probability, or of another output in units of its largest value, on any chip; None where rounding
        moves single answers and only the share counts.  flipped: share of chips whose label changes.
    points: of accuracy lost, 0.5 is half a per cent, and hundredths of CCC, where labels are given.
    """

    largest: float | None
    flipped: float = 1.0
    points: float = 0.5


class Difference(msgspec.Struct, frozen=True):
    """Two models on the same chips: how many; the largest difference; how many labels changed."""

    chips: int
    largest: float
    flipped: int

    def __str__(self) -> str:
        share = f"{self.flipped} of {self.chips:,} labels flipped" if self.chips else "no chips"
        return f"largest difference {self.largest:.1e}, {share}"


def compare(wanted: FullSession, got: FullSession, batches: Iterable[np.ndarray]) -> Difference:
    """The difference over batches of chips, float32 (n, 3, h, w). Raises ExportError: NaN where the other has a number."""
    count, largest, flipped = 0, 0.0, 0
    for batch in batches:
        for start in range(0, len(batch), _BATCH):
            chips = batch[start : start + _BATCH]
            ours, theirs = wanted.run_all(chips), got.run_all(chips)
            for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                largest = max(largest, _largest(a, b, number))
            count += len(chips)
            flipped += int((_label(ours[0]) != _label(theirs[0])).sum())
    return Difference(count, largest, flipped)


def _largest(wanted: np.ndarray, got: np.ndarray, number: int) -> float:
    """Of output `number`: probabilities and affect as they are, the others in units of their largest value."""
    if (np.isnan(wanted) != np.isnan(got)).any():
        raise ExportError("the file answers NaN where it should not, or the other way round; nothing was written")
    scale = 1.0 if number < 2 else max(1.0, float(np.nanmax(np.abs(wanted), initial=0)))
    return float(np.nanmax(np.abs(wanted - got) / scale, initial=0))


def _label(probabilities: np.ndarray) -> np.ndarray:
    return np.nan_to_num(probabilities).argmax(axis=1)


def refuse(found: Difference, allowed: Allowed, of: str) -> None:
    """Raises ExportError where the difference is more than is allowed."""
    if allowed.largest is not None and not found.largest <= allowed.largest:
        raise ExportError(
            f"the file's answers differ from {of} by {found.largest:.2g} (allowed {allowed.largest:g}); nothing was written"
        )
    if found.flipped > allowed.flipped * found.chips:
        raise ExportError(
            f"the file answers {found.flipped} of {found.chips} chips with another label than {of} "
            f"(allowed {allowed.flipped:.0%}); nothing was written"
        )
