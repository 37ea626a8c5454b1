"""ABAW / Aff-Wild2: videos annotated frame by frame, with eight expressions or with valence and arousal.

D. Kollias et al., "ABAW: Valence-Arousal Estimation, Expression Recognition, Action Unit Detection & Multi-Task
Learning Challenges", CVPR workshops 2022, arXiv:2202.10659. One .txt a video: a header, then line i for frame i,
which is the picture `video/0000i.jpg`, numbered from 1. Frames in which no face was found have no picture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources.card import Card
from mien.data.sources.folders import onehot, subfolders
from mien.data.sources.notes import Notes
from mien.data.sources.text import code, lines, number
from mien.errors import DataError, DatasetNotFound
from mien.labels import CODES, KNOWN_SETS

__all__ = ["CARD_EXPR", "CARD_VA", "matches_expr", "matches_va", "read_expr", "read_va"]

_LABELS = (*KNOWN_SETS["affectnet7"], "other")
_EXPR = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
_VA = "valence,arousal"
_INVALID = -5.0
_LICENCE = "non-commercial research, on request; no redistribution"
_HOME = "https://ibug.doc.ic.ac.uk/resources/aff-wild2/"
_OBTAIN = "ask for Aff-Wild2 on its home page, which needs a signed agreement"
_SPLITS = {"Train_Set": "train", "Validation_Set": "validation", "Test_Set": "test"}
#: Where the pictures of the frames may lie, below the root.
_IMAGES = ("cropped_aligned", "cropped_aligned_images", "cropped", "images", "frames")

CARD_EXPR = Card(
    name="abaw-expr",
    title="ABAW / Aff-Wild2, expressions",
    labels=_LABELS,
    licence=_LICENCE,
    home=_HOME,
    layout=f"a .txt per video ({_EXPR}; a code per line) in Train_Set/ and Validation_Set/, and cropped_aligned/<video>/00001.jpg",
    obtain=_OBTAIN,
    faces=True,
    cite="Kollias et al. 2022, arXiv:2202.10659",
    splits=_SPLITS,
)

CARD_VA = Card(
    name="abaw-va",
    title="ABAW / Aff-Wild2, valence and arousal",
    labels=KNOWN_SETS["affectnet8"],
    licence=_LICENCE,
    home=_HOME,
    layout=f"a .txt per video ({_VA}; two numbers per line) in Train_Set/ and Validation_Set/, and cropped_aligned/<video>/00001.jpg",
    obtain=_OBTAIN,
    faces=True,
    cite=CARD_EXPR.cite,
    splits=_SPLITS,
)


class _Answer(NamedTuple):
    """What a line says of its frame."""

    target: np.ndarray | None
    valence: float
    arousal: float


def matches_expr(root: Path) -> str:
    """The form under a root, from names and header lines only; '' if no expressions are there."""
    return "a .txt per video" if _lists(root, _EXPR) else ""


def matches_va(root: Path) -> str:
    """The form under a root, from names and header lines only; '' if no valence and arousal are there."""
    return "a .txt per video" if _lists(root, _VA) else ""


def read_expr(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Eight labels (the eighth is `other`); frames marked -1, and frames without a picture, are counted."""
    return _read(root, CARD_EXPR, _EXPR, _expression)


def read_va(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Valence and arousal, no labels; frames marked -5, and frames without a picture, are counted."""
    return _read(root, CARD_VA, _VA, _affect)


def _read(root: Path, card: Card, header: str, parse: Callable[[str, str], _Answer | None]) -> Manifest:
    found = _lists(root, header)
    if not found:
        raise DatasetNotFound(f"{root}: no annotations of {card.title} here; expected {card.layout}; {card.obtain}")
    _check_neighbours(root, found, header)
    notes = Notes()
    samples = (sample for path in found for sample in _video(root, path, card, parse, notes))
    return make_manifest(samples, lambda: notes.header(card), root)


def _lists(root: Path, header: str) -> list[Path]:
    """The .txt files with this header line, sorted. The folders of pictures are not looked into."""
    if not root.is_dir():
        return []
    return [path for path in _texts(root, depth=4) if _head(path) == header.lower()]


def _texts(folder: Path, depth: int) -> list[Path]:
    """The .txt files of an annotation tree; folders of pictures are not looked into."""
    found = sorted(path for path in folder.glob("*.txt") if path.is_file())
    if depth and not (folder / "00001.jpg").is_file():
        deeper = [name for name in subfolders(folder) if name not in _IMAGES]
        found += [path for name in deeper for path in _texts(folder / name, depth - 1)]
    return found


def _head(path: Path) -> str:
    """The first line, without its spaces and in small letters."""
    with path.open("rb") as file:
        return "".join(file.readline(200).decode("utf-8-sig", "replace").lower().split())


def _check_neighbours(root: Path, found: list[Path], header: str) -> None:
    """Refuse a .txt among the videos' that has no header of any challenge: it would be lost in silence."""
    folders = {path.parent for path in found}
    for path in _texts(root, depth=4):
        head = _head(path)
        known = head in (_EXPR.lower(), _VA) or head.startswith("au1,") or "readme" in path.stem.lower()
        if not known and (path.parent in folders or path.parent.name in ("Train_Set", "Validation_Set")):
            raise DataError(f"{path}: its first line is {head[:60] or 'empty'}; expected {header}")


def _video(
    root: Path, path: Path, card: Card, parse: Callable[[str, str], _Answer | None], notes: Notes
) -> Iterator[Sample]:
    frames = _frames(root, path)
    there = {entry.name for entry in os.scandir(root / frames)}
    subject = re.sub(r"_(left|right)$", "", path.stem)
    split = next((_SPLITS[word] for word in reversed(path.parts) if word in _SPLITS), "train")
    rows = lines(path)
    next(rows)
    some, blank = False, ""
    for i, (where, line) in enumerate(rows, 1):
        if not line:
            blank = blank or where
            continue
        if blank:
            raise DataError(
                f"{blank}: is blank, and lines follow; line i is frame i, so a line that says nothing hides which"
            )
        some, answer = True, parse(line, where)
        if answer is None:
            notes.leave("not annotated")
        elif f"{i:05}.jpg" not in there:
            notes.leave("a frame without a picture")
        else:
            image = frames / f"{i:05}.jpg"
            name = f"{card.name}:{path.stem}/{i:05}"
            yield Sample(name, image, answer.target, split, valence=answer.valence, arousal=answer.arousal, subject=subject)  # fmt: skip
    if not some:
        raise DataError(f"{path}: no rows; is the file cut off?")


def _frames(root: Path, path: Path) -> Path:
    """The folder of a video's pictures, relative to the root."""
    for place in (*_IMAGES, ""):
        if (root / place / path.stem).is_dir():
            return Path(place, path.stem)
    raise DataError(f"{path}: no folder {path.stem} with its frames under {root}; expected cropped_aligned/{path.stem}")


def _expression(line: str, where: str) -> _Answer | None:
    found = code(line, where, "expression", -1, 7)
    if found < 0:
        return None
    name = CODES["abaw"][found]
    assert name is not None
    return _Answer(onehot(_LABELS, name), float("nan"), float("nan"))


def _affect(line: str, where: str) -> _Answer | None:
    words = line.split(",")
    if len(words) != 2:
        raise DataError(f"{where}: {len(words)} values; expected valence,arousal")
    valence, arousal = (number(word, where, name) for word, name in zip(words, ("valence", "arousal"), strict=True))
    if _INVALID in (valence, arousal):
        return None
    for value, name in ((valence, "valence"), (arousal, "arousal")):
        number(value, where, name, -1, 1)
    return _Answer(None, valence, arousal)
