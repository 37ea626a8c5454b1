"""The forms FER2013 is handed out in: CSV files, Parquet files, and folders of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from mien.data.sources import parquet
from mien.data.sources.folders import expression, first_picture, known_class, pictures, subfolders
from mien.data.sources.notes import Notes
from mien.data.sources.text import code, csv_header, csv_rows
from mien.errors import DataError
from mien.labels import CODES

__all__ = ["FOREIGN", "SIDE", "USAGES", "VOTES", "Row", "form", "has_votes", "numbered", "unnumbered"]

SIDE = 48
USAGES = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
#: The warning that goes with the folders images/train and images/validation.
FOREIGN = (
    "the folders images/train and images/validation are another split of FER2013, not the official one: "
    "results on it are not comparable with published ones"
)

_CODES = CODES["fer2013"]
_COLUMNS = ("image", "emotion", "usage")
_NAMED = re.compile(r"(Training|PublicTest|PrivateTest)_\w+")
_FULL = ("fer2013.csv", "icml_face_data.csv")


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of FER2013.

    key: unique; the row's number in fer2013.csv where the form carries it.  label: '' where unlabelled.
    usage: the dataset's word for its split, or mien's own where the form has another split.
    votes: FER+'s ten counts, where the form carries them.
    """

    key: str
    usage: str
    label: str
    image: bytes | Path
    votes: tuple[int, ...] | None = None

    @property
    def number(self) -> int:
        """The row in fer2013.csv."""
        return int(self.key)


def form(root: Path) -> str:
    """The form under a root, from names and headers only; '' if it is none of FER2013's."""
    if _csv(root):
        return "CSV"
    if _parquets(root):
        return "Parquet"
    if _competition(root):
        return "competition CSV"
    if _official_folders(root):
        return "class folders, the official split in the names"
    return "class folders, another split" if _foreign_folders(root) else ""


def has_votes(root: Path) -> bool:
    """Whether the Parquet files under a root carry FER+'s votes."""
    return not _csv(root) and any(set(VOTES) <= set(parquet.columns(path)) for path in _parquets(root))


def numbered(root: Path) -> Iterator[Row]:
    """Rows in the order of fer2013.csv, from CSV or Parquet: the forms that know it. Raises DataError."""
    path = _csv(root)
    last = -1
    for row in _from_csv(path) if path else _from_parquets(_parquets(root)):
        if row.number == last:
            raise DataError(f"{root}: row {last} of FER2013 is there twice; is a file there in two copies?")
        last = row.number
        yield row


def unnumbered(root: Path, notes: Notes) -> Iterator[Row]:
    """Rows of the other forms, in the order of their files and names. Raises DataError."""
    if _competition(root):
        for path in _competition(root):
            yield from _from_competition(path)
    elif folder := _official_folders(root):
        yield from _from_official(root, folder, notes)
    elif folder := _foreign_folders(root):
        notes.warn(FOREIGN)
        yield from _from_foreign(root, folder, notes)


def _csv(root: Path) -> Path | None:
    if root.is_file():
        listed = root.suffix.lower() == ".csv" and "pixels" in csv_header(root) and not _competition(root)
        return root if listed else None
    candidates = [root / place / name for place in ("", "fer2013") for name in _FULL]
    return next((path for path in candidates if path.is_file()), None)


def _parquets(root: Path) -> list[Path]:
    if root.is_file():
        found = [root] if root.suffix.lower() == ".parquet" else []
    else:
        found = [path for folder in (root, root / "fer2013") for path in parquet.within(folder)]
    return [path for path in found if set(_COLUMNS) <= set(parquet.columns(path))]


def _competition(root: Path) -> list[Path]:
    """train.csv (emotion,pixels) and test.csv (pixels), those that are there."""
    paths = [root] if root.is_file() else [root / name for name in ("train.csv", "test.csv")]
    headers = {"train": ["emotion", "pixels"], "test": ["pixels"]}
    return [path for path in paths if path.suffix.lower() == ".csv" and path.is_file() and csv_header(path) == headers.get(path.stem)]  # fmt: skip


def _official_folders(root: Path) -> str:
    """Where below the root train|validation|test/<class>/Training_N.jpg lies ('.' for the root); '' if nowhere."""
    for place in (".", "fer2013"):
        for word in ("train", "test", "validation"):
            if any(_NAMED.match(first_picture(folder)) for folder in _classes(root / place / word)):
                return place
    return ""


def _foreign_folders(root: Path) -> str:
    """Where below the root train|validation/<class> lies within a folder named images; '' if nowhere."""
    if root.name == "images" and _classes(root / "train") and _classes(root / "validation"):
        return "."
    return "images" if _classes(root / "images" / "train") and _classes(root / "images" / "validation") else ""


def _classes(folder: Path) -> list[Path]:
    names = subfolders(folder) if folder.is_dir() else []
    return [folder / name for name in names if expression(name) in _CODES]


def _from_csv(path: Path) -> Iterator[Row]:
    for number, (where, row) in enumerate(csv_rows(path, ("emotion", "pixels", "Usage"), what="FER2013")):
        yield Row(str(number), _usage(row["Usage"], where), _name(row["emotion"], where), _png(row["pixels"], where))


def _from_competition(path: Path) -> Iterator[Row]:
    usage = "Training" if path.stem == "train" else "test"
    for number, (where, row) in enumerate(csv_rows(path, ("pixels",))):
        label = _name(row["emotion"], where) if "emotion" in row else ""
        yield Row(f"{path.stem}/{number}", usage, label, _png(row["pixels"], where))


def _from_parquets(paths: list[Path]) -> Iterator[Row]:
    """Files one after another where their row numbers ascend; else sorted, which needs all rows at once."""
    bare = [path for path in paths if "row" not in parquet.columns(path)]
    if bare and len(paths) > 1:
        raise DataError(
            f"{bare[0]}: no column row with each row's number in fer2013.csv, and there is another file: which comes first is "
            "not known; add the column, or put the rows into one file in that order"
        )
    firsts = {path: _numbers(path) for path in paths}
    paths = sorted(paths, key=lambda path: firsts[path][:1])
    every = [number for path in paths for number in firsts[path]]
    rows = (row for path in paths for row in _from_parquet(path))
    yield from rows if every == sorted(every) else sorted(rows, key=lambda row: row.number)


def _numbers(path: Path) -> list[int]:
    """The rows' numbers: the column `row`, or the position where it is absent or empty."""
    if "row" not in parquet.columns(path):
        return list(range(pq.read_metadata(path).num_rows))
    found = (row["row"] for _, row in parquet.rows(path, ("row",)))
    return [at if number is None else int(number) for at, number in enumerate(found)]


def _from_parquet(path: Path) -> Iterator[Row]:
    there = set(parquet.columns(path))
    votes = VOTES if set(VOTES) <= there else ()
    wanted = (*_COLUMNS, *votes, *(("row",) if "row" in there else ()))
    for at, (where, row) in enumerate(parquet.rows(path, wanted)):
        counts = tuple(code(row[name], where, name, 0, 127) for name in votes) if votes and row["NF"] is not None else None  # fmt: skip
        number = at if row.get("row") is None else row["row"]
        usage, label = _usage(row["usage"], where), _name(row["emotion"], where)
        yield Row(str(number), usage, label, parquet.image(row["image"], where), counts)


def _from_official(root: Path, place: str, notes: Notes) -> Iterator[Row]:
    seen = set[str]()
    for word in ("train", "validation", "test"):
        for folder in _classes_strictly(root / place / word):
            label = known_class(folder.name, str(folder), _labels())
            for name in pictures(folder, notes):
                path = folder / name
                found = _NAMED.match(Path(name).stem)
                if found is None or (found[1] == "Training") != (word == "train"):
                    raise DataError(f"{path}: expected a name that says the split of {word}/, such as Training_17.jpg")
                stem = Path(name).stem
                if stem in seen:
                    raise DataError(f"{path}: an image of this name lies in another class folder too")
                seen.add(stem)
                yield Row(stem, found[1], label, path.relative_to(root))


def _from_foreign(root: Path, place: str, notes: Notes) -> Iterator[Row]:
    for word in ("train", "validation"):
        for folder in _classes_strictly(root / place / word):
            label = known_class(folder.name, str(folder), _labels())
            for name in pictures(folder, notes):
                yield Row(f"{word}/{folder.name}/{name}", word, label, (folder / name).relative_to(root))


def _classes_strictly(folder: Path) -> Iterable[Path]:
    return [folder / name for name in subfolders(folder)] if folder.is_dir() else []


def _labels() -> tuple[str, ...]:
    return tuple(name for name in _CODES if name)


def _usage(word: Any, where: str) -> str:
    if word not in USAGES:
        raise DataError(f"{where}: usage {word!r}; expected one of {', '.join(USAGES)}")
    return str(word)


def _name(value: Any, where: str) -> str:
    name = _CODES[code(value, where, "emotion", 0, len(_CODES) - 1)]
    assert name is not None
    return name


def _png(pixels: str, where: str) -> bytes:
    try:
        grey = np.array(pixels.split(), dtype=np.uint8)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: pixels: not numbers from 0 to 255 ({error})") from error
    if grey.size != SIDE * SIDE:
        raise DataError(f"{where}: {grey.size} pixels; expected {SIDE * SIDE}")
    return bytes(cv2.imencode(".png", grey.reshape(SIDE, SIDE))[1])
