"""FER+: ten crowd votes for each picture of FER2013, over eight expressions, 'unknown' and 'not a face'.

E. Barsoum, C. Zhang, C. Canton Ferrer, Z. Zhang, "Training Deep Networks for Facial Expression Recognition with
Crowd-Sourced Label Distribution", ICMI 2016, arXiv:1608.01041.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mien.data.manifest import Header, Manifest, Sample, make_manifest
from mien.data.sources import fer2013
from mien.data.sources.card import Card
from mien.errors import DataError, DatasetNotFound, near_miss
from mien.labels import CODES, KNOWN_SETS, LabelSet

__all__ = ["CARD", "RULES", "read", "targets"]

_LABELS = LabelSet(KNOWN_SETS["affectnet8"])
#: The column of `votes` for each label, in the order of the label set.
_COLUMNS = [CODES["ferplus"].index(name) for name in _LABELS]
_NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")

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
    found = fer2013.rows(root)
    votes = _votes(root, found)
    wanted, kept = targets(votes, rule)
    samples = [
        Sample(f"fer2013:{row.number}", row.image, wanted[i], CARD.splits[row.usage])
        for i, row in enumerate(found)
        if kept[i]
    ]
    header = Header(source="ferplus", labels=_LABELS.names, rule=rule, licence=CARD.licence, framing=fer2013.FRAMING)
    return make_manifest(samples, header)


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


def _votes(root: Path, found: list[fer2013.Row]) -> np.ndarray:
    """(n, 10) votes of the rows: from the rows themselves, or from fer2013new.csv beside fer2013.csv."""
    if all(row.votes is not None for row in found):
        return np.array([row.votes for row in found])
    folder = root.parent if root.is_file() else root
    paths = [folder / "fer2013new.csv", folder / "fer2013" / "fer2013new.csv", folder / "ferplus" / "fer2013new.csv"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise DatasetNotFound(f"{folder}: no fer2013new.csv with the FER+ votes here; {CARD.obtain}")
    return _from_csv(path, found)


def _from_csv(path: Path, found: list[fer2013.Row]) -> np.ndarray:
    """The votes by row order: the number in an image's name is not the row."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"Usage", *_NAMES} - set(reader.fieldnames or [])
        if missing:
            raise DataError(f"{path}: no column {', '.join(sorted(missing))}; expected FER+'s fer2013new.csv")
        lines = list(reader)
    if found[-1].number >= len(lines):
        raise DataError(
            f"{path}: {len(lines)} rows of votes for {found[-1].number + 1} rows of FER2013; rows match by order"
        )
    votes = []
    for row in found:
        line, where = lines[row.number], f"{path}, row {row.number}"
        if line["Usage"] != row.usage:
            raise DataError(f"{where}: usage {line['Usage']!r}, FER2013 says {row.usage!r}; rows match by order")
        votes.append([_count(line[name], where, name) for name in _NAMES])
    return np.array(votes)


def _count(text: str | None, where: str, name: str) -> int:
    if text is None or not text.strip().isdigit():
        raise DataError(f"{where}: {name}: {text!r} is not a number of votes")
    return int(text)
