"""FER+: ten crowd votes for each picture of FER2013, over eight expressions, 'unknown' and 'not a face'.

E. Barsoum, C. Zhang, C. Canton Ferrer, Z. Zhang, "Training Deep Networks for Facial Expression Recognition with
Crowd-Sourced Label Distribution", ICMI 2016, arXiv:1608.01041.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources import fer2013
from mien.data.sources.card import Card
from mien.data.sources.fer2013_forms import VOTES, has_votes
from mien.data.sources.notes import Notes
from mien.data.sources.text import csv_rows
from mien.errors import DataError, DatasetNotFound, near_miss
from mien.labels import CODES, KNOWN_SETS, LabelSet

__all__ = ["CARD", "RULES", "all_votes", "matches", "read", "targets"]

_LABELS = LabelSet(KNOWN_SETS["affectnet8"])
#: The column of `votes` for each label, in the order of the label set.
_COLUMNS = [CODES["ferplus"].index(name) for name in _LABELS]

RULES = ("majority", "distribution", "plain")

CARD = Card(
    name="ferplus",
    title="FER+",
    labels=_LABELS.names,
    licence="labels MIT (Microsoft); the pictures are FER2013's, which carry no licence",
    home="https://github.com/microsoft/FERPlus",
    layout="fer2013.csv with fer2013new.csv beside it, or Parquet files with image, emotion, usage and the ten votes",
    obtain="get fer2013.csv from the FER2013 competition and fer2013new.csv from FER+'s page",
    cite="Barsoum et al. 2016, arXiv:1608.01041",
    splits=fer2013.CARD.splits,
    counts={
        "train": dict(zip(_LABELS, (8740, 7287, 3014, 3149, 532, 119, 2100, 119), strict=True)),
        "validation": dict(zip(_LABELS, (1182, 865, 351, 415, 62, 24, 287, 13), strict=True)),
    },
    framing=fer2013.FRAMING,
)


def read(root: Path, rule: str = "majority") -> Manifest:
    """FER2013's pictures with FER+ targets over eight labels; rows that the rule leaves without one are left out.

    majority: Microsoft's: single votes are dropped, a class needs more than half of the votes left; one-hot.
    distribution: single votes are dropped; the votes left for the eight expressions, normalised. Rows where
        'unknown' and 'not a face' hold half of the votes or more are left out.
    plain: the expression with the most votes (the first in FER+'s order at a tie), unless 'unknown' or 'not a
        face' has more; one-hot.
    """
    if rule not in RULES:
        raise DataError(f"ferplus: unknown rule {rule!r}; {near_miss(rule, RULES)}")
    notes = Notes()
    return make_manifest(_samples(root, rule, notes), lambda: notes.header(CARD, rule=rule))


def all_votes(root: Path) -> dict[str, tuple[int, ...]]:
    """The ten votes of every row by its id, in FER+'s column order ('unknown' and 'not a face' last), whatever rule would keep it.

    Raises DatasetNotFound, DataError.
    """
    beside = _Beside(root)
    return {f"fer2013:{row.key}": beside(row) if row.votes is None else tuple(row.votes) for row in fer2013.rows(root)}


def matches(root: Path) -> str:
    """The form under a root, from names and headers only; '' if FER2013 or the votes are not there."""
    found = fer2013.matches(root)
    if found == "CSV":
        return "CSV, votes in fer2013new.csv" if _find(root) else ""
    return "Parquet with votes" if found and has_votes(root) else ""


def _samples(root: Path, rule: str, notes: Notes) -> Iterator[Sample]:
    rows, beside = fer2013.rows(root), _Beside(root)
    while part := list(islice(rows, 1024)):
        votes = [beside(row) if row.votes is None else row.votes for row in part]
        wanted, kept = targets(np.array(votes), rule)
        ours = np.array(votes)[:, _COLUMNS]
        for row, target, keep, said in zip(part, wanted, kept, ours, strict=True):
            if keep:
                yield Sample(f"fer2013:{row.key}", row.image, target, CARD.splits[row.usage], votes=said)
            else:
                notes.leave(f"the votes give no target by the rule {rule!r}")
    for text in beside.warnings():
        notes.warn(text)


def targets(votes: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets from (n, 10) votes in FER+'s column order: (n, 8) float32 in mien's order, and (n,) whether kept.

    >>> votes = np.array([[6, 0, 0, 3, 0, 0, 0, 1, 0, 0]])
    >>> hard, soft = targets(votes, "majority")[0], targets(votes, "distribution")[0]
    >>> int(hard.argmax()), [round(float(share), 2) for share in soft[0][:3]]
    (0, [0.67, 0.0, 0.33])
    """
    votes = np.asarray(votes, np.float64)
    if rule == "plain":
        winner = votes.argmax(axis=1)
        return np.eye(10, dtype=np.float32)[winner][:, _COLUMNS], winner < 8
    settled = np.where(votes == 1, 0, votes)
    if rule == "majority":
        winner = settled.argmax(axis=1)
        clear = settled.max(axis=1) > settled.sum(axis=1) / 2
        return np.eye(10, dtype=np.float32)[winner][:, _COLUMNS], clear & (winner < 8)
    faces = settled[:, _COLUMNS]
    known = faces.sum(axis=1)
    kept = (known > 0) & (known > settled[:, 8:].sum(axis=1))
    return (faces / np.maximum(known, 1)[:, None]).astype(np.float32), kept


def _find(root: Path) -> Path | None:
    """fer2013new.csv beside fer2013.csv."""
    folder = root.parent if root.is_file() else root
    paths = [folder / "fer2013new.csv", folder / "fer2013" / "fer2013new.csv", folder / "ferplus" / "fer2013new.csv"]
    return next((path for path in paths if path.is_file()), None)


class _Beside:
    """The votes in fer2013new.csv, by row order: the number in an image's name is not the row."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._path = _find(root)
        self._votes: list[tuple[str, tuple[int, ...]]] | None = None
        self._asked: Counter[str] = Counter()

    def __call__(self, row: fer2013.Row) -> tuple[int, ...]:
        """The ten votes of a row. Raises DatasetNotFound without the file, DataError if it does not fit."""
        if self._path is None:
            raise DatasetNotFound(f"{self.root}: no fer2013new.csv with the FER+ votes here; {CARD.obtain}")
        if self._votes is None:
            self._votes = list(_from_csv(self._path))
        if row.number >= len(self._votes):
            raise DataError(
                f"{self._path}: {len(self._votes)} rows of votes, but FER2013 has a row {row.number}; rows match by order"
            )
        usage, votes = self._votes[row.number]
        if usage != row.usage:
            where = f"{self._path}, row {row.number}"
            raise DataError(f"{where}: usage {usage!r}, FER2013 says {row.usage!r}; rows match by order")
        self._asked[usage] += 1
        return votes

    def warnings(self) -> Iterator[str]:
        """What to say once all rows were asked for: votes that no row took may have shifted those of the others."""
        there = Counter(usage for usage, _ in self._votes or ())
        for usage, rows in self._asked.items():
            if rows < there[usage]:
                yield (
                    f"{self._path}: {there[usage]:,} rows of votes of {usage}, FER2013 has {rows:,} here; rows match by order, so votes "
                    "after a row that was taken out belong to other faces: read the whole FER2013, clean afterwards"
                )


def _from_csv(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for where, row in csv_rows(path, ("Usage", *VOTES)):
        yield row["Usage"], tuple(_count(row[name], where, name) for name in VOTES)


def _count(text: str, where: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{where}: {name}: {text!r} is not a number of votes")
    return int(text)
