"""AffectNet's training data as handed out on Kaggle: 96x96 pictures in eight class folders, and labels.csv.

The folder and the CSV disagree on some rows; the CSV is the later label, and it wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources import affectnet
from mien.data.sources.card import Card
from mien.data.sources.folders import Listed, expression, known_class, onehot
from mien.data.sources.notes import Notes
from mien.data.sources.text import csv_header, csv_rows
from mien.errors import DatasetNotFound
from mien.labels import KNOWN_SETS

__all__ = ["CARD", "matches", "read"]

CARD = Card(
    name="affectnet-kaggle",
    title="AffectNet training data on Kaggle",
    labels=KNOWN_SETS["affectnet8"],
    licence=affectnet.CARD.licence,
    home="https://www.kaggle.com/datasets/noamsegal/affectnet-training-data",
    layout="labels.csv (an index, then pth,label,relFCs) beside eight folders of pictures named after the classes",
    obtain="get it from its Kaggle page and give its folder with --data",
    cite=affectnet.CARD.cite,
    splits={"train": "train"},
    faces=True,
)

_COLUMNS = ("pth", "label", "relFCs")


def matches(root: Path) -> str:
    """The form under a root, from names and the header only; '' if it is not this dataset."""
    path = _list(root)
    there = path.is_file() and path.suffix.lower() == ".csv"
    return "labels.csv over class folders" if there and set(_COLUMNS) <= set(csv_header(path)) else ""


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Eight labels from labels.csv; rows whose folder says otherwise are kept and counted in a warning."""
    path = _list(root)
    if not path.is_file():
        raise DatasetNotFound(f"{root}: no AffectNet from Kaggle here; expected {CARD.layout}; {CARD.obtain}")
    notes = Notes()
    return make_manifest(_samples(path, notes), lambda: notes.header(CARD), path.parent)


def _list(root: Path) -> Path:
    return root if root.is_file() else root / "labels.csv"


def _samples(path: Path, notes: Notes) -> Iterator[Sample]:
    listed, disagree = Listed(path.parent), 0
    for where, row in csv_rows(path, _COLUMNS):
        image = listed(row["pth"], where)
        name = known_class(row["label"], where, CARD.labels)
        disagree += expression(image.parent.name) != name
        yield Sample(f"affectnet-kaggle:{image.as_posix()}", image, onehot(CARD.labels, name))
    if disagree:
        notes.warn(f"{disagree:,} rows where folder and labels.csv disagree; labels.csv is the later label and wins")
