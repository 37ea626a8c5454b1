"""RAF-DB, basic expressions: faces from the web, seven labels by many annotators each.

S. Li, W. Deng, J. Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition in the
Wild", CVPR 2017.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources.card import Card
from mien.data.sources.folders import Listed, onehot
from mien.data.sources.notes import Notes
from mien.data.sources.text import code, lines
from mien.errors import DataError, DatasetNotFound
from mien.labels import CODES, KNOWN_SETS

__all__ = ["CARD", "matches", "read"]

_ORDER = CODES["rafdb"][1:]

CARD = Card(
    name="rafdb",
    title="RAF-DB, basic expressions",
    labels=KNOWN_SETS["affectnet7"],
    licence="non-commercial research, on request; no redistribution",
    home="http://www.whdeng.cn/raf/model1.html",
    layout="list_patition_label.txt (train_00001.jpg 5) and the folder aligned/ (train_00001_aligned.jpg)",
    obtain="ask for it on its home page, which needs an academic address",
    cite="Li, Deng, Du, CVPR 2017",
    splits={"train": "train", "test": "test"},
    # Class counts as the literature gives them; checked here only against the known totals.
    counts={
        "train": dict(zip(_ORDER, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)),  # type: ignore[arg-type]
        "test": dict(zip(_ORDER, (329, 74, 160, 1185, 478, 162, 680), strict=True)),  # type: ignore[arg-type]
    },
    faces=True,
)

_LISTS = ("", "EmoLabel/", "basic/EmoLabel/")
_IMAGES = ("Image/aligned", "basic/Image/aligned", "aligned")


def matches(root: Path) -> str:
    """The form under a root, from names only; '' if it is not this dataset."""
    return "list and aligned pictures" if _list(root) else ""


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Seven labels over the aligned pictures."""
    path = _list(root)
    if path is None:
        raise DatasetNotFound(f"{root}: no RAF-DB here; expected {CARD.layout}; {CARD.obtain}")
    folder = _top(path) if root.is_file() else root
    prefix = next((place for place in _IMAGES if (folder / place).is_dir()), None)
    if prefix is None:
        raise DatasetNotFound(f"{folder}: no folder aligned/ with RAF-DB's pictures; expected {CARD.layout}")
    notes = Notes()
    return make_manifest(_samples(path, Listed(folder, prefix)), lambda: notes.header(CARD), folder)


def _list(root: Path) -> Path | None:
    name = "list_patition_label.txt"
    if root.is_file():
        return root if root.name == name else None
    return next((root / place / name for place in _LISTS if (root / place / name).is_file()), None)


def _top(path: Path) -> Path:
    return path.parent.parent if path.parent.name == "EmoLabel" else path.parent


def _samples(path: Path, listed: Listed) -> Iterator[Sample]:
    at = 0
    for where, line in lines(path):
        if not line:
            continue
        at += 1
        words = line.split()
        if len(words) != 2:
            raise DataError(f"{where}: {line!r}; expected a name and a code, such as 'train_00001.jpg 5'")
        stem, ending = os.path.splitext(words[0])
        split = CARD.splits.get(stem.split("_")[0])
        if split is None:
            raise DataError(f"{where}: {words[0]!r} says no split; expected a name that starts with train_ or test_")
        name = CODES["rafdb"][code(words[1], where, "label", 1, 7)]
        assert name is not None
        image = listed(f"{stem}_aligned{ending}", where)
        yield Sample(f"rafdb:{stem}", image, onehot(CARD.labels, name), split)
    if not at:
        raise DataError(f"{path}: no rows; is the file cut off?")
