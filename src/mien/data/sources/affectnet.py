"""AffectNet, first release: pictures from the web with eleven categories, valence and arousal, in two CSV files.

A. Mollahosseini, B. Hasani, M. H. Mahoor, "AffectNet: A Database for Facial Expression, Valence, and Arousal
Computing in the Wild", IEEE Transactions on Affective Computing 2017, arXiv:1708.03985.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources.card import Card
from mien.data.sources.folders import Listed, onehot
from mien.data.sources.notes import Notes
from mien.data.sources.text import code, csv_header, csv_rows, number, points
from mien.errors import DataError, DatasetNotFound
from mien.faces import Box
from mien.labels import CODES, KNOWN_SETS

__all__ = ["CARD", "INVALID", "REJECTS", "TRAIN", "affect", "matches", "read"]

#: Training images per class, in the order of the codes 0 to 7: those of the 2021 release. They are the paper's
#: totals less the 500 validation images per class, hence also those of the first release.
TRAIN = (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750)
#: The codes that are no expression.
REJECTS = {8: "none of the eight expressions", 9: "uncertain", 10: "no face"}
#: The valence or arousal of a row that nobody could annotate.
INVALID = -2.0

CARD = Card(
    name="affectnet",
    title="AffectNet, first release",
    labels=KNOWN_SETS["affectnet8"],
    licence="research only, on request; no redistribution",
    home="http://mohammadmahoor.com/affectnet/",
    layout="training.csv and validation.csv (with or without the header line) beside Manually_Annotated_Images/",
    obtain="ask for it on its home page, which needs a signed agreement",
    cite="Mollahosseini et al. 2017, arXiv:1708.03985",
    splits={"training": "train", "validation": "validation"},
    counts={
        "train": dict(zip(KNOWN_SETS["affectnet8"], TRAIN, strict=True)),
        "validation": dict.fromkeys(KNOWN_SETS["affectnet8"], 500),
    },
)

_COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression",
    "valence", "arousal",
)  # fmt: skip
_LISTS = ("", "Manually_Annotated_file_lists", "Manually_Annotated")
_IMAGES = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", "Manually_Annotated")


def matches(root: Path) -> str:
    """The form under a root, from names and headers only; '' if it is not this dataset."""
    for path in _lists(root):
        first = csv_header(path)
        if _has_header(first) or _is_row(first):
            return f"CSV {'with' if _has_header(first) else 'without'} header"
    return ""


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Eight labels, affect, face boxes and 68 landmarks; rows of the codes 8, 9 and 10 are left out and counted."""
    lists = _lists(root)
    if not lists:
        raise DatasetNotFound(f"{root}: no AffectNet here; expected {CARD.layout}; {CARD.obtain}")
    folder, notes = (root.parent if root.is_file() else root), Notes()
    return make_manifest(_samples(folder, lists, notes), lambda: notes.header(CARD), folder)


def affect(value: object, where: str, name: str) -> float:
    """Valence or arousal in [-1, 1]; NaN for the dataset's -2. Raises DataError for anything else."""
    found = number(value, where, name)
    return math.nan if found == INVALID else number(value, where, name, -1, 1)


def _lists(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.stem in CARD.splits and root.suffix.lower() == ".csv" else []
    paths = [root / place / f"{name}.csv" for place in _LISTS for name in CARD.splits]
    return [path for path in paths if path.is_file()]


def _samples(root: Path, lists: list[Path], notes: Notes) -> Iterator[Sample]:
    prefix = next((place for place in _IMAGES if (root / place).is_dir()), "")
    listed = Listed(root, prefix)
    for path in lists:
        first = csv_header(path)
        if not _has_header(first) and not _is_row(first):
            raise DataError(f"{path}: starts with {','.join(first)[:80] or 'nothing'}; expected {','.join(_COLUMNS)}")
        for where, row in csv_rows(path, _COLUMNS, None if _has_header(first) else _COLUMNS):
            found = code(row["expression"], where, "expression", 0, 10)
            name = CODES["affectnet"][found]
            image = listed(row["subDirectory_filePath"], where)
            if name is None:
                notes.leave(REJECTS[found])
                continue
            yield Sample(
                f"affectnet:{image.relative_to(prefix).as_posix()}",
                image,
                onehot(CARD.labels, name),
                CARD.splits[path.stem],
                _box(row, where),
                points(row["facial_landmarks"].split(";"), where),
                affect(row["valence"], where, "valence"),
                affect(row["arousal"], where, "arousal"),
            )


def _has_header(first: list[str]) -> bool:
    return _COLUMNS[0] in first


def _is_row(first: list[str]) -> bool:
    """Whether the first line is data: the landmarks are where they belong."""
    return len(first) == len(_COLUMNS) and ";" in first[5]


def _box(row: dict[str, str], where: str) -> Box:
    x, y, width, height = (number(row[name], where, name) for name in _COLUMNS[1:5])
    if width <= 0 or height <= 0:
        raise DataError(f"{where}: the face is {width:g} wide and {height:g} high; expected more than 0")
    return x, y, x + width, y + height
