"""The comparison every export ends in: the same chips through what is shipped from and what is shipped."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from mien.errors import ExportError
from mien.evaluation.affect import concordance, rmse
from mien.runtime.sessions import FullSession

__all__ = ["Agreement", "Allowed", "Difference", "agreement", "apart", "compare", "label_changes", "refuse"]

_BATCH = 64
#: A thousandth of the range of valence and arousal. Answers that are nearer than this on average agree, however little they vary
#: and CCC says; and where they vary by no more, no model can lose more than about a hundredth of CCC by them.
_LEVEL = 0.002


class Allowed(msgspec.Struct, frozen=True):
    """What a target may change; beyond it there is no file.

    largest: difference of a probability, or of another output in units of its largest value, on any chip; None where rounding
        moves single answers and only the share counts.  flipped: share of chips whose label changes.
    points: of accuracy lost, 0.5 is half a per cent, and hundredths of CCC, where labels are given.
    ccc: least concordance of valence, and of arousal, with what they were; it needs no labels. -1 allows any.
    """

    largest: float | None
    flipped: float = 1.0
    points: float = 0.5
    ccc: float = -1.0


class Agreement(msgspec.Struct, frozen=True):
    """Valence and arousal of two models on the same chips: Lin's concordance and the root of the mean squared difference of each."""

    ccc: tuple[float, float]
    rmse: tuple[float, float]

    def short(self, least: float) -> tuple[str, float] | None:
        """The worse of the two and its CCC, where that is less than `least`; None where both agree.

        Answers that are hardly apart at all agree whatever their CCC, which means nothing where they hardly vary.
        """
        apart = [
            (ccc, name)
            for name, ccc, error in zip(("valence", "arousal"), self.ccc, self.rmse, strict=True)
            if not error <= _LEVEL and not ccc >= least
        ]
        return (min(apart)[1], min(apart)[0]) if apart else None

    def __str__(self) -> str:
        said = []
        for name, ccc, error in zip(("valence", "arousal"), self.ccc, self.rmse, strict=True):
            said.append(f"{ccc:.4f} ({name}" + (f", within {_LEVEL:g})" if error <= _LEVEL else ")"))
        return f"CCC with it {' and '.join(said)}"


class Difference(msgspec.Struct, frozen=True):
    """Two models on the same chips: how many; the largest difference; how many labels changed, and how far valence and
    arousal agree: None where the models do not answer them."""

    chips: int
    largest: float
    flipped: int | None
    affect: Agreement | None = None

    def __str__(self) -> str:
        words = [f"largest difference {self.largest:.1e}"]
        if not self.chips:
            return f"{words[0]}, no chips"
        if self.flipped is not None:
            words.append(f"{self.flipped} of {self.chips:,} labels flipped")
        return ", ".join([*words, *([] if self.affect is None else [str(self.affect)])])


def compare(wanted: FullSession, got: FullSession, batches: Iterable[np.ndarray]) -> Difference:
    """The difference over batches of chips, float32 (n, 3, h, w). Raises ExportError: NaN where the other has a number."""
    largest = 0.0
    said: list[tuple[np.ndarray, ...]] = []
    for batch in batches:
        for start in range(0, len(batch), _BATCH):
            chips = batch[start : start + _BATCH]
            ours, theirs = wanted.run_all(chips), got.run_all(chips)
            for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                largest = max(largest, _largest(a, b, number))
            said.append((*ours[:2], *theirs[:2]))
    if not said:
        return Difference(0, 0.0, None)
    labels, affect, new_labels, new_affect = (np.concatenate(column) for column in zip(*said, strict=True))
    return Difference(len(labels), largest, label_changes(labels, new_labels), agreement(affect, new_affect))


def _largest(wanted: np.ndarray, got: np.ndarray, number: int) -> float:
    """Of output `number`: probabilities and affect as they are, the others in units of their largest value."""
    return apart(wanted, got, 1.0 if number < 2 else max(1.0, float(np.nanmax(np.abs(wanted), initial=0))))


def apart(wanted: np.ndarray, got: np.ndarray, scale: float = 1.0) -> float:
    """The largest difference, in units of `scale`. Raises ExportError: NaN where the other has a number."""
    if (np.isnan(wanted) != np.isnan(got)).any():
        raise ExportError("the file answers NaN where it should not, or the other way round; nothing was written")
    return float(np.nanmax(np.abs(wanted - got) / scale, initial=0))


def label_changes(wanted: np.ndarray, got: np.ndarray) -> int | None:
    """How many labels of (n, c) probabilities are others in `got`; None where `wanted` is all NaN: without an expression head."""
    if np.isnan(wanted).all():
        return None
    return int((np.nan_to_num(wanted).argmax(axis=1) != np.nan_to_num(got).argmax(axis=1)).sum())


def agreement(wanted: np.ndarray, got: np.ndarray) -> Agreement | None:
    """How far (n, 2) valence and arousal agree; None where `wanted` is all NaN. Where only `got` is NaN, they do not: CCC is NaN."""
    known = ~np.isnan(wanted).any(axis=1)
    if not known.any():
        return None
    pairs = [(got[known, i].astype(np.float64), wanted[known, i].astype(np.float64)) for i in (0, 1)]
    (ccc, error), (other, apart) = ((concordance(*pair), rmse(*pair)) for pair in pairs)
    return Agreement((ccc, other), (error, apart))


def refuse(found: Difference, allowed: Allowed, of: str) -> None:
    """Raises ExportError where the difference is more than is allowed."""
    if allowed.largest is not None and not found.largest <= allowed.largest:
        raise ExportError(
            f"the file's answers differ from {of} by {found.largest:.2g} (allowed {allowed.largest:g}); nothing was written"
        )
    if found.flipped is not None and found.flipped > allowed.flipped * found.chips:
        raise ExportError(
            f"the file answers {found.flipped} of {found.chips} chips with another label than {of} "
            f"(allowed {allowed.flipped:.0%}); nothing was written"
        )
    short = None if found.affect is None else found.affect.short(allowed.ccc)
    if short is not None:
        raise ExportError(
            f"the file's {short[0]} has a CCC of {short[1]:.4f} with {of} (allowed {allowed.ccc:g} or more); nothing was written"
        )
