"""FER2013: 35,887 grey faces of 48x48 pixels with seven labels, as CSV or as Parquet.

I. J. Goodfellow et al., "Challenges in Representation Learning: A report on three machine learning contests",
ICML 2013 workshop, arXiv:1307.0414.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mien.data.manifest import Header, Manifest, Sample, make_manifest
from mien.data.sources.card import Card
from mien.errors import DataError, DatasetNotFound
from mien.labels import CODES, KNOWN_SETS, LabelSet
from mien.spec import CropSpec

__all__ = ["CARD", "FRAMING", "SIDE", "Row", "read", "rows"]

SIDE = 48

#: How the pictures sit on the face: where YuNet finds the landmarks in enlarged Training pictures, as fractions of
#: the side (docs/framing.md says how it was measured).
FRAMING = CropSpec(
    width=SIDE,
    height=SIDE,
    align="five",
    points=((0.3166, 0.3939), (0.6834, 0.3939), (0.5, 0.5964), (0.344, 0.7443), (0.656, 0.7443)),
    colour="grey",
)

CARD = Card(
    name="fer2013",
    title="FER2013",
    labels=KNOWN_SETS["affectnet7"],
    licence="no licence to redistribute the pictures (collected by web search)",
    home="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    layout="fer2013.csv (emotion,pixels,Usage), or Parquet files with image, emotion and usage",
    obtain="get it from the competition's page and give its folder with --data",
    cite="Goodfellow et al. 2013, arXiv:1307.0414",
    splits={"Training": "train", "PublicTest": "validation", "PrivateTest": "test"},
    counts={
        "train": dict(zip(CODES["fer2013"], (3995, 436, 4097, 7215, 4830, 3171, 4965), strict=True)),  # type: ignore[arg-type]
        "validation": dict(zip(CODES["fer2013"], (467, 56, 496, 895, 653, 415, 607), strict=True)),  # type: ignore[arg-type]
    },
    framing=FRAMING,
)

_VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of FER2013 in the order of fer2013.csv; `votes` are FER+'s ten counts where the form carries them."""

    number: int
    usage: str
    emotion: int
    image: bytes
    votes: tuple[int, ...] | None = None


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """FER2013 with its own seven labels, from any known form under `root`."""
    labels = LabelSet(CARD.labels)
    samples = [
        Sample(f"fer2013:{row.number}", row.image, labels.onehot(_name(row)), CARD.splits[row.usage])
        for row in rows(root)
    ]
    return make_manifest(samples, Header(source="fer2013", labels=labels.names, licence=CARD.licence, framing=FRAMING))


def _name(row: Row) -> str:
    name = CODES["fer2013"][row.emotion]
    assert name is not None
    return name


def rows(root: Path) -> list[Row]:
    """All rows under a folder, or of one file, in the order of fer2013.csv.

    Raises DatasetNotFound if no known form is there, DataError naming file and row if a row is malformed.
    """
    path = _csv(root)
    found = list(_from_csv(path)) if path else [row for part in _parquets(root) for row in _from_parquet(part)]
    if not found:
        raise DatasetNotFound(f"{root}: no FER2013 here; expected {CARD.layout}; {CARD.obtain}")
    found.sort(key=lambda row: row.number)
    for before, after in pairwise(found):
        if before.number == after.number:
            raise DataError(f"{root}: row {after.number} of FER2013 is there twice; is a file there in two copies?")
    return found


def _csv(root: Path) -> Path | None:
    candidates = [root] if root.is_file() else [root / "fer2013.csv", root / "fer2013" / "fer2013.csv"]
    return next((path for path in candidates if path.suffix == ".csv" and path.is_file()), None)


def _parquets(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    found = [path for folder in (root, root / "fer2013") for path in sorted(folder.glob("*.parquet"))]
    return [path for path in found if {"emotion", "usage", "image"} <= set(_columns(path))]


def _columns(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _from_parquet(path: Path) -> Iterator[Row]:
    missing = {"emotion", "usage", "image"} - set(_columns(path))
    if missing:
        raise DataError(f"{path}: not FER2013: no column {', '.join(sorted(missing))}")
    table = pq.read_table(path)
    has_votes = set(_VOTES) <= set(table.column_names)
    for at, row in enumerate(table.to_pylist()):
        where = f"{path}, row {at}"
        votes = tuple(row[name] for name in _VOTES) if has_votes and row["NF"] is not None else None
        number = row.get("row")
        yield Row(
            at if number is None else number,
            _usage(row["usage"], where),
            _code(row["emotion"], where),
            _bytes(row["image"], where),
            votes,
        )


def _bytes(image: Any, where: str) -> bytes:
    if not isinstance(image, dict) or not image.get("bytes"):
        raise DataError(f"{where}: the image column holds no picture")
    return bytes(image["bytes"])


def _from_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or []]
        if not {"emotion", "pixels", "Usage"} <= set(columns):
            raise DataError(f"{path}: the header is {','.join(columns) or 'empty'}; expected emotion,pixels,Usage")
        reader.fieldnames = columns
        for number, row in enumerate(reader):
            where = f"{path}, row {number}"
            yield Row(
                number, _usage(row["Usage"], where), _code(row["emotion"], where), _png(row["pixels"] or "", where)
            )


def _usage(word: Any, where: str) -> str:
    if word not in CARD.splits:
        raise DataError(f"{where}: usage {word!r}; expected one of {', '.join(CARD.splits)}")
    return str(word)


def _code(value: Any, where: str) -> int:
    try:
        code = int(value)
    except (TypeError, ValueError):
        code = -1
    if not 0 <= code < len(CODES["fer2013"]):
        raise DataError(f"{where}: emotion {value!r}; expected a code from 0 to {len(CODES['fer2013']) - 1}")
    return code


def _png(pixels: str, where: str) -> bytes:
    try:
        grey = np.array(pixels.split(), dtype=np.uint8)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: pixels: not numbers from 0 to 255 ({error})") from error
    if grey.size != SIDE * SIDE:
        raise DataError(f"{where}: {grey.size} pixels; expected {SIDE * SIDE}")
    return bytes(cv2.imencode(".png", grey.reshape(SIDE, SIDE))[1])
