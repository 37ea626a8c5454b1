"""The FER2013 competition's form: one label a row, as its integer code, in the order of the rows."""

from __future__ import annotations

from os import PathLike

import numpy as np

from mien.errors import DataError
from mien.evaluation.predictions import Predictions
from mien.files import whole_file
from mien.labels import CODES, LabelSet

__all__ = ["write_submission"]


def write_submission(
    predictions: Predictions, path: str | PathLike[str], codes: str = "fer2013", overwrite: bool = False
) -> None:
    """Write the most probable label of each row as a code of CODES[codes], one a line, in the order of `predictions`.

    Labels that the competition does not have are left out and the rest renormalised. Raises DataError if a row then has
    nothing left, OutputError.
    """
    names = tuple(name for name in CODES[codes] if name is not None)
    moved = LabelSet(tuple(predictions.labels)).project(predictions.probabilities, LabelSet(names))
    lost = np.flatnonzero(np.isnan(moved).any(axis=1))
    if len(lost):
        raise DataError(f"{predictions.ids[lost[0]]}: nothing left on {', '.join(names)}")
    chosen = [CODES[codes].index(names[best]) for best in moved.argmax(axis=1)]
    with whole_file(path, overwrite) as part:
        part.write_text("".join(f"{code}\n" for code in chosen), encoding="utf-8")
