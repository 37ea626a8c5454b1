"""AffectNet-HQ: a seven-class selection of AffectNet at higher resolution, as Parquet files on Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources import affectnet
from mien.data.sources.card import Card
from mien.data.sources.folders import Listed, expression, onehot
from mien.data.sources.notes import Notes
from mien.data.sources.parquet import class_names, columns, image, parquets, rows
from mien.data.sources.text import code
from mien.errors import DataError, DatasetNotFound
from mien.labels import CODES, KNOWN_SETS

__all__ = ["CARD", "matches", "read"]

CARD = Card(
    name="affectnet-hq",
    title="AffectNet-HQ",
    labels=KNOWN_SETS["affectnet7"],
    licence=affectnet.CARD.licence,
    home="https://huggingface.co/datasets/Piro17/affectnethq",
    layout="Parquet files with image and label (0 anger 1 disgust 2 fear 3 happy 4 neutral 5 sad 6 surprise)",
    obtain="get the Parquet files from its page and give their folder with --data",
    cite=affectnet.CARD.cite,
    splits={"train": "train"},
    faces=True,
)

_CODES = CODES["affectnet-hq"]


def matches(root: Path) -> str:
    """The form under a root: Parquet whose metadata names exactly these classes in this order; else ''."""
    found = parquets(root)
    if not found or not {"image", "label"} <= set(columns(found[0])):
        return ""
    return "Hugging Face Parquet" if class_names(found[0]) == ["anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"] else ""  # fmt: skip


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Seven labels; every row is `train`."""
    found = [path for path in parquets(root) if root.is_file() or {"image", "label"} <= set(columns(path))]
    if not found:
        raise DatasetNotFound(f"{root}: no AffectNet-HQ here; expected {CARD.layout}; {CARD.obtain}")
    for path in found:
        _check_names(path)
    notes, folder = Notes(), (root.parent if root.is_file() else root)
    return make_manifest(_samples(found, folder), lambda: notes.header(CARD), folder)


def _check_names(path: Path) -> None:
    names = class_names(path)
    if names and tuple(expression(name) for name in names) != _CODES:
        raise DataError(f"{path}: its classes are {', '.join(names)}: not AffectNet-HQ; read it as huggingface")


def _samples(paths: list[Path], root: Path) -> Iterator[Sample]:
    listed, at = Listed(root), 0
    for path in paths:
        for where, row in rows(path, ("image", "label")):
            name = _CODES[code(row["label"], where, "label", 0, len(_CODES) - 1)]
            assert name is not None
            yield Sample(f"affectnet-hq:{at}", image(row["image"], where, listed), onehot(CARD.labels, name))
            at += 1
