"""Pictures in folders: finding them, naming their classes, and never leaving the dataset's folder.

Links to folders are refused, not followed: they can lead out of the dataset, or round in a circle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from mien.data.sources.notes import Notes
from mien.errors import DataError, near_miss
from mien.files import path_text
from mien.labels import KNOWN_SETS
from mien.vision.image import SUFFIXES

__all__ = [
    "PICTURES", "Listed", "expression", "first_picture", "known_class", "onehot", "ordered", "pictures", "split_word", "subfolders",
]  # fmt: skip

#: Endings of picture files.
PICTURES = SUFFIXES

_LABELS = KNOWN_SETS["affectnet8"]
#: Other words for the expressions, as folders and lists use them.
_WORDS = {
    "happy": "happiness", "joy": "happiness", "sad": "sadness", "surprised": "surprise", "fearful": "fear",
    "afraid": "fear", "disgusted": "disgust", "angry": "anger", "contemptuous": "contempt",
    **{name: name for name in _LABELS},
}  # fmt: skip
_SPLITS = {
    "train": "train", "training": "train", "train_set": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "publictest": "validation", "validation_set": "validation",
    "val_set": "validation", "test": "test", "testing": "test", "privatetest": "test", "test_set": "test",
}  # fmt: skip


def expression(word: str) -> str:
    """mien's name for an expression, from the words in use ('Happy', 'sad'); '' for any other word."""
    return _WORDS.get(word.strip().lower(), "")


def known_class(word: str, where: str, labels: tuple[str, ...]) -> str:
    """mien's name for a class of this dataset. Raises DataError for any other word."""
    name = expression(word)
    if name not in labels:
        raise DataError(f"{where}: unknown class {word!r}; {near_miss(word.lower(), labels)}")
    return name


def split_word(word: str) -> str:
    """mien's word for a split, from the words in use ('Val', 'training'); '' for any other word."""
    return _SPLITS.get(word.strip().lower(), "")


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names: the expressions first, in AffectNet's order, then others as they came."""
    distinct = list(dict.fromkeys(names))
    return tuple([name for name in _LABELS if name in distinct] + [name for name in distinct if name not in _LABELS])


def onehot(labels: tuple[str, ...], name: str) -> np.ndarray:
    """The (c,) float32 distribution that puts everything on one name."""
    target = np.zeros(len(labels), np.float32)
    target[labels.index(name)] = 1.0
    return target


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            there = sorted((e for e in found if not e.name.startswith((".", "__"))), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    odd = next((entry.path for entry in there if _listed(entry) and path_text(entry.name) != entry.name), None)
    if odd is not None:
        raise DataError(f"{os.fsencode(odd)!r}: a name that is not UTF-8, which no manifest can hold; rename it")
    return there


def _listed(entry: os.DirEntry[str]) -> bool:
    """Whether a manifest would name it: a picture, or a folder of some."""
    return entry.is_dir() or os.path.splitext(entry.name)[1].lower() in PICTURES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder. Raises DataError for a link to one, or one that leads nowhere."""
    if entry.is_symlink() and not os.path.isfile(entry.path):
        raise DataError(
            f"{entry.path}: a link to a folder, or one that leads nowhere; links are not followed: "
            "put the folder itself there, or take the link away"
        )
    return entry.is_dir(follow_symlinks=False)


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted. Raises DataError for a link to a folder."""
    return [entry.name for entry in _entries(folder) if _is_folder(entry)]


def pictures(folder: Path, notes: Notes | None = None) -> Iterator[str]:
    """Paths of the picture files under a folder, relative to it, sorted; other files are counted in the notes."""
    for entry in _entries(folder):
        if _is_folder(entry):
            yield from (f"{entry.name}/{name}" for name in pictures(folder / entry.name, notes))
        elif os.path.splitext(entry.name)[1].lower() in PICTURES:
            yield entry.name
        elif notes is not None:
            notes.leave("not a picture file")


def first_picture(folder: Path) -> str:
    """The name of some picture directly in a folder, cheaply; '' if there is none or no such folder."""
    try:
        with os.scandir(folder) as found:
            return next((e.name for e in found if os.path.splitext(e.name)[1].lower() in PICTURES), "")
    except OSError:
        return ""


class Listed:
    """Pictures that a list names: each inside the dataset's folder, there, and named once.

    root: the dataset's folder.  prefix: where in it the listed paths start.  again: what is said after a picture named twice.
    """

    def __init__(self, root: Path, prefix: str = "", again: str = "") -> None:
        self.root, self.prefix, self.again = root, prefix, again
        self._seen: set[str] = set()

    def __call__(self, text: str, where: str, face: str = "") -> Path:
        """The picture's path relative to the root. Raises DataError.

        face: says which face of the picture a row is about, in lists where a picture may hold several.
        """
        path = PurePosixPath(self.prefix) / inside(text, where)
        name = str(path)
        row = f"{name} (face {face})" if face else name
        if row in self._seen:
            raise DataError(f"{where}: the image {text}{row[len(name) :]} stands on an earlier row too{self.again}")
        self._seen.add(row)
        if not os.path.isfile(os.path.join(self.root, name)):
            raise DataError(f"{where}: no such image: {self.root / name}; is the copy complete?")
        return Path(name)


def inside(text: str, where: str) -> str:
    """A relative path with forward slashes. Raises DataError for one that leaves the folder."""
    path = text.strip().replace("\\", "/")
    if not path or "\0" in path:
        raise DataError(f"{where}: the path of the image is empty or unreadable: {text!r}")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/"):
        raise DataError(f"{where}: the path {text} leaves the dataset's folder; give it relative to the folder")
    return path
