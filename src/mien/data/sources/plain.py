"""Your own data in three plain forms: a folder per class, a table of paths, Hugging Face Parquet.

Class names are free text. Words for the eight expressions ('Happy', 'sad') become mien's names; others stay as given.
A class that is called by a bare number is refused: numbers mean another class in each dataset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources import parquet
from mien.data.sources.card import Card
from mien.data.sources.folders import Listed, expression, onehot, ordered, pictures, split_word, subfolders
from mien.data.sources.notes import Notes
from mien.data.sources.raters import by_face
from mien.data.sources.text import box, code, csv_header, csv_rows, number, points
from mien.errors import DataError, DatasetNotFound, near_miss
from mien.faces import Box
from mien.labels import KNOWN_SETS

__all__ = [
    "CARD_FOLDERS", "CARD_HUGGINGFACE", "CARD_TABLE",
    "matches_folders", "matches_huggingface", "matches_table", "read_folders", "read_huggingface", "read_table",
]  # fmt: skip

_WORDS = {"train": "train", "validation": "validation", "test": "test"}
_COLUMNS = ("id", "path", "image", "expression", "valence", "arousal", "split", "subject", "box", "landmarks")
#: The column that says whose a row is, where several people rated each face.
_RATER = "rater"
#: What others call the column of expressions; and what may be that, or any fact beside valence and arousal.
_SURE, _LIKELY = ("label", "labels", "emotion", "emotions"), ("class", "category", "target")


def _card(name: str, title: str, layout: str) -> Card:
    return Card(
        name=name,
        title=title,
        labels=KNOWN_SETS["affectnet8"],
        licence="",
        home="",
        layout=layout,
        obtain="arrange your own pictures so",
        cite="",
        splits=_WORDS,
    )


CARD_FOLDERS = _card(
    "folders", "A folder per class", "<class>/picture.jpg, or train|validation|test/<class>/picture.jpg"
)
CARD_TABLE = _card(
    "table",
    "A table of pictures",
    "a CSV or Parquet file with path (or image, which in Parquet may hold the picture) and any of id, expression, valence, arousal, split, subject, "
    "box (x0,y0,x1,y1), landmarks (x;y;...); with a column rater, a row a rater and face",
)
CARD_HUGGINGFACE = _card(
    "huggingface",
    "Hugging Face image Parquet",
    "Parquet files such as train-00000-of-00001.parquet with image and label, and the class names in their metadata",
)


def matches_folders(root: Path) -> str:
    """The form under a root, from names only; '' if there are no pictures in folders."""
    if not root.is_dir() or not subfolders(root):
        return ""
    if not any(True for name in subfolders(root) for _ in pictures(root / name)):
        return ""
    return "class folders in split folders" if any(map(split_word, subfolders(root))) else "class folders"


def matches_table(root: Path) -> str:
    """The form under a root, from names and headers only; '' if there is no such table."""
    path = _table(root)
    columns = _table_columns(path) if path else []
    found = "path" in columns or {"image", "expression"} <= set(columns)
    return f"{path.suffix[1:].lower()} table" if path and found else ""


def matches_huggingface(root: Path) -> str:
    """The form under a root, from headers only; '' if no Parquet file has image, label and class names."""
    return "Parquet with class names" if any(parquet.class_names(path) for path in _labelled(root)) else ""


def read_folders(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """A folder per class, optionally below folders called train, validation (or val) and test."""
    names = subfolders(root) if root.is_dir() else []
    splits = {name: split_word(name) for name in names}
    if any(splits.values()) and not all(splits.values()):
        odd = ", ".join(name for name in names if not splits[name])
        raise DataError(f"{root}: some folders are splits, but not {odd}; put class folders into the split folders")
    tops = splits if any(splits.values()) else {"": "train"}
    classes = {(top, name): _class(name, str(root / top / name)) for top in tops for name in subfolders(root / top)} if names else {}  # fmt: skip
    labels, notes = _label_set(classes.values(), root), Notes()
    samples = (
        Sample(f"folders:{path}", Path(path), onehot(labels, label), tops[top])
        for (top, word), label in classes.items()
        for name in pictures(root / top / word, notes)
        for path in [Path(top, word, name).as_posix()]
    )
    manifest = make_manifest(samples, lambda: notes.header(CARD_FOLDERS, labels), root)
    if not len(manifest):
        raise DatasetNotFound(f"{root}: no pictures in class folders here; expected {CARD_FOLDERS.layout}")
    return manifest


def read_table(root: Path, rule: str = "") -> Manifest:
    """A CSV or Parquet file, or a folder that holds exactly one; paths start from the file's folder.

    It is read twice: once for the class names, once for the rows. Empty cells mean: not known. Other columns (age, gender,
    site) are kept as facts about the rows, as text. A column `rater` says whose each row is: then a face has a row, with votes and the
    target that the rule makes of them (mien.data.sources.raters.by_face).
    """
    path = _table(root)
    if path is None:
        raise DatasetNotFound(f"{root}: no table here (one CSV or Parquet file); expected {CARD_TABLE.layout}")
    notes = Notes()
    columns, facts = _known_columns(path)
    labels = KNOWN_SETS["affectnet8"]
    if "expression" in columns:
        words = (_class(row["expression"], where) for where, row in _rows(path, ("expression",)) if row["expression"])
        labels = _label_set(words, path)
    rows, raters = enumerate(_rows(path, (*columns, *facts))), _RATER in facts
    listed = Listed(path.parent, again="" if raters else "; if several people rated it, say who in a column rater")
    facts = tuple(name for name in facts if name != _RATER)
    rated = ((where, _sample(at, row, where, labels, listed, facts, raters)) for at, (where, row) in rows)
    samples = by_face(rated, rule or "majority", notes) if raters else (sample for _, sample in rated)
    return make_manifest(samples, lambda: notes.header(CARD_TABLE, labels, rule if raters else ""), path.parent)


def read_huggingface(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Parquet files with `image` and `label`; the split is the start of the file's name; label -1 is unlabelled."""
    paths = _labelled(root)
    if not paths:
        raise DatasetNotFound(f"{root}: no Parquet files with image and label here; expected {CARD_HUGGINGFACE.layout}")
    names = {path: _names(path) for path in paths}
    labels = _label_set((name for path in paths for name in names[path]), root)
    folder = root.parent if root.is_file() else root
    listed, notes = Listed(folder), Notes()
    samples = (
        Sample(
            f"huggingface:{path.stem}/{at}",
            parquet.image(row["image"], where, listed),
            target,
            _file_split(path, notes),
        )
        for path in paths
        for at, (where, row) in enumerate(parquet.rows(path, ("image", "label")))
        for target in [_huggingface_target(row["label"], where, names[path], labels)]
    )
    return make_manifest(samples, lambda: notes.header(CARD_HUGGINGFACE, labels), folder)


def _class(word: str, where: str) -> str:
    """mien's name for a class, or the word itself. Raises DataError for a bare number."""
    word = str(word).strip()
    if word.lstrip("+-").replace(".", "", 1).isdigit():
        raise DataError(
            f"{where}: the class {word!r} is a code, and codes differ from dataset to dataset; give its name"
        )
    return expression(word) or word


def _label_set(names: Iterable[str], where: Path) -> tuple[str, ...]:
    """The label set of these classes. One expression alone stands in the set of all eight."""
    labels = ordered(names)
    if len(labels) < 2 and set(labels) <= set(KNOWN_SETS["affectnet8"]):
        return KNOWN_SETS["affectnet8"]
    if len(labels) < 2:
        raise DataError(f"{where}: only one class, {labels[0]!r}; a label set needs at least two")
    return labels


def _table(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".parquet") else None
    found = [path for path in sorted(root.iterdir()) if path.is_file() and path.suffix.lower() in (".csv", ".parquet")]
    return found[0] if len(found) == 1 else None


def _table_columns(path: Path) -> list[str]:
    return csv_header(path) if path.suffix.lower() == ".csv" else parquet.columns(path)


def _known_columns(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns with a meaning, and those with further facts. Raises DataError: no pictures, or a column that looks misspelt."""
    there = _table_columns(path)
    if not {"path", "image"} & set(there):
        raise DataError(
            f"{path}: no column path; it has: {', '.join(there) or 'nothing'}; expected {CARD_TABLE.layout}"
        )
    affect = {"valence", "arousal"} & set(there)
    likely = next((name for name in there if name.lower() in (_SURE if affect else (*_SURE, *_LIKELY))), None)
    if likely is not None and "expression" not in there:
        raise DataError(
            f"{path}: no column expression, but {likely!r}; rename it to expression (names such as happy; codes need their "
            "dataset's own source), or to another word if it says nothing of expressions"
        )
    for name in there:
        if name not in _COLUMNS and get_close_matches(name.lower(), _COLUMNS, 1, 0.8):
            raise DataError(f"{path}: unknown column {name!r}; {near_miss(name.lower(), _COLUMNS)}")
    return tuple(name for name in _COLUMNS if name in there), tuple(name for name in there if name not in _COLUMNS)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    return csv_rows(path, columns) if path.suffix.lower() == ".csv" else parquet.rows(path, columns)


def _empty(value: Any) -> bool:
    return value is None or value == "" or value != value  # NaN


def _sample(
    at: int,
    row: dict[str, Any],
    where: str,
    labels: tuple[str, ...],
    listed: Listed,
    facts: tuple[str, ...],
    raters: bool = False,
) -> Sample:
    if raters and _empty(row[_RATER]):
        raise DataError(f"{where}: the column rater is empty; say whose row it is, or leave the row out")
    word, split, subject = (row.get(name) for name in ("expression", "split", "subject"))
    edges = _box(row.get("box"), where)
    face = "" if edges is None else ",".join(f"{edge:g}" for edge in edges)
    face += f"{' ' * bool(face)}of rater {row[_RATER]}" if raters else ""
    picture = row.get("image")
    place = picture if isinstance(picture, str) else str(row.get("path") or "")  # a text in `image` is a path as well
    return Sample(
        f"table:{at}" if _empty(row.get("id")) else str(row["id"]),
        parquet.image(picture, where, listed)
        if picture and not isinstance(picture, str)
        else listed(place, where, face),
        onehot(labels, _class(word, where)) if word else None,
        _split(split, where) if split else "train",
        edges,
        _points(row.get("landmarks"), where),
        _affect(row.get("valence"), where, "valence"),
        _affect(row.get("arousal"), where, "arousal"),
        str(subject) if subject not in (None, "") else None,
        facts={name: None if _empty(row.get(name)) else str(row[name]) for name in facts},
    )


def _split(word: Any, where: str) -> str:
    found = split_word(str(word))
    if not found:
        raise DataError(f"{where}: unknown split {word!r}; {near_miss(str(word), _WORDS)}")
    return found


def _box(value: Any, where: str) -> Box | None:
    if value is None or len(value) == 0:
        return None
    return box(value.split(",") if isinstance(value, str) else list(value), where)


def _points(value: Any, where: str) -> np.ndarray | None:
    if value is None or len(value) == 0:
        return None
    return points(value.split(";") if isinstance(value, str) else list(value), where, (5, 68))


def _affect(value: Any, where: str, name: str) -> float:
    unknown = value in (None, "") or (isinstance(value, float) and math.isnan(value))
    told = value.replace(",", ".") if isinstance(value, str) else value  # 0,5 in Europe
    return math.nan if unknown else number(told, where, name, -1, 1)


def _labelled(root: Path) -> list[Path]:
    return [path for path in parquet.parquets(root) if {"image", "label"} <= set(parquet.columns(path))]


def _names(path: Path) -> list[str]:
    names = parquet.class_names(path)
    if not names:
        raise DataError(
            f"{path}: the metadata names no classes for the column label (ClassLabel); without names a label is only "
            "a code: write the file with the datasets library, or use a table with a column expression"
        )
    return [_class(name, str(path)) for name in names]


def _huggingface_target(value: Any, where: str, names: list[str], labels: tuple[str, ...]) -> np.ndarray | None:
    found = code(value, where, "label", -1, len(names) - 1)
    return None if found < 0 else onehot(labels, names[found])


def _file_split(path: Path, notes: Notes) -> str:
    words = path.stem.split("-")[0]
    found = split_word(words) or split_word(path.parent.name)
    if not found:
        notes.warn(f"{path.name}: its name says no split; its rows are train")
    return found or "train"
