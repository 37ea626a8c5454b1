"""CK+48: the last frames of CK+'s posed sequences as grey pictures of 48x48 pixels, in seven class folders.

P. Lucey et al., "The Extended Cohn-Kanade Dataset (CK+)", CVPR workshops 2010. There is no official split: split by
subject, because a subject has three frames of each sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources.card import Card
from mien.data.sources.folders import expression, first_picture, known_class, onehot, pictures, subfolders
from mien.data.sources.notes import Notes
from mien.errors import DataError, DatasetNotFound

__all__ = ["CARD", "matches", "read"]

_LABELS = ("happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
_SUBJECT = re.compile(r"S\d{3}(?=_)")

CARD = Card(
    name="ckplus",
    title="CK+48",
    labels=_LABELS,
    licence="research only, on request; no redistribution",
    home="https://www.jeffcohn.net/resources/",
    layout="the folders anger contempt disgust fear happy sadness surprise, with pictures such as S010_004_00000017.png",
    obtain="ask for CK+ on its home page; CK+48 is a crop of its last three frames",
    cite="Lucey et al. 2010, CVPR workshops",
    splits={},
    counts={"train": dict(zip(_LABELS, (207, 84, 249, 75, 177, 135, 54), strict=True))},
    faces=True,
)


def matches(root: Path) -> str:
    """The form under a root, from names only; '' if it is not this dataset."""
    folder = _folder(root)
    return "class folders" if folder and _SUBJECT.match(_any_picture(folder)) else ""


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Seven labels (no neutral) and the subject of each picture; every row is `train`: split by subject."""
    folder = _folder(root)
    if folder is None:
        raise DatasetNotFound(f"{root}: no CK+48 here; expected {CARD.layout}; {CARD.obtain}")
    notes = Notes()
    return make_manifest(_samples(folder, notes), lambda: notes.header(CARD), folder)


def _folder(root: Path) -> Path | None:
    for folder in (root, root / "CK+48"):
        if folder.is_dir() and any(expression(name) in _LABELS for name in subfolders(folder)):
            return folder
    return None


def _any_picture(folder: Path) -> str:
    return next((name for word in subfolders(folder) if (name := first_picture(folder / word))), "")


def _samples(root: Path, notes: Notes) -> Iterator[Sample]:
    for word in subfolders(root):
        label = known_class(word, str(root / word), _LABELS)
        for name in pictures(root / word, notes):
            subject = _SUBJECT.match(name)
            if subject is None:
                raise DataError(f"{root / word / name}: no subject in the name; expected S###_... as in CK+")
            yield Sample(f"ckplus:{word}/{name}", Path(word, name), onehot(_LABELS, label), subject=subject[0])
