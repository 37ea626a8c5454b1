"""AffectNet, 2021 release: cropped faces of 224x224 pixels, four small .npy files of annotations for each.

The numbers in the .npy files are stored as NumPy *strings*. A. Mollahosseini, B. Hasani, M. H. Mahoor, "AffectNet",
IEEE Transactions on Affective Computing 2017, arXiv:1708.03985.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError

import numpy as np

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources import affectnet
from mien.data.sources.card import Card
from mien.data.sources.folders import onehot, pictures
from mien.data.sources.notes import Notes
from mien.data.sources.text import code, points
from mien.errors import DataError, DatasetNotFound
from mien.labels import CODES, KNOWN_SETS

__all__ = ["CARD", "matches", "read"]

CARD = Card(
    name="affectnet2021",
    title="AffectNet, 2021 release",
    labels=KNOWN_SETS["affectnet8"],
    licence=affectnet.CARD.licence,
    home=affectnet.CARD.home,
    layout="train_set/ and val_set/, each with images/N.jpg and annotations/N_exp.npy, N_val.npy, N_aro.npy, N_lnd.npy",
    obtain=affectnet.CARD.obtain,
    cite=affectnet.CARD.cite,
    splits={"train_set": "train", "val_set": "validation"},
    counts={
        "train": affectnet.CARD.counts["train"],
        "validation": {**affectnet.CARD.counts["validation"], "contempt": 499},
    },
)


def matches(root: Path) -> str:
    """The form under a root, from names only; '' if it is not this dataset."""
    return "pictures and .npy annotations" if _sets(root) else ""


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Eight labels, affect and 68 landmarks, in the order of the pictures' numbers."""
    if not _sets(root):
        raise DatasetNotFound(f"{root}: no AffectNet of 2021 here; expected {CARD.layout}; {CARD.obtain}")
    notes = Notes()
    return make_manifest(_samples(root, notes), lambda: notes.header(CARD), root)


def _sets(root: Path) -> list[str]:
    return [
        word for word in CARD.splits if (root / word / "images").is_dir() and (root / word / "annotations").is_dir()
    ]


def _samples(root: Path, notes: Notes) -> Iterator[Sample]:
    for word in _sets(root):
        annotations = root / word / "annotations"
        names = sorted(pictures(root / word / "images", notes), key=lambda name: (len(name), name))
        _check_complete(root / word, len(names))
        for name in names:
            stem = os.path.splitext(name)[0]
            path = annotations / f"{stem}_exp.npy"
            found = code(_text(path), str(path), "expression", 0, 10)
            label = CODES["affectnet"][found]
            if label is None:
                notes.leave(affectnet.REJECTS[found])
                continue
            yield Sample(
                f"affectnet2021:{word}/{stem}",
                Path(word) / "images" / name,
                onehot(CARD.labels, label),
                CARD.splits[word],
                landmarks=points(_strings(annotations / f"{stem}_lnd.npy"), str(annotations / f"{stem}_lnd.npy")),
                valence=_affect(annotations / f"{stem}_val.npy", "valence"),
                arousal=_affect(annotations / f"{stem}_aro.npy", "arousal"),
            )


def _check_complete(folder: Path, images: int) -> None:
    with os.scandir(folder / "annotations") as found:
        annotations = sum(entry.name.endswith("_exp.npy") for entry in found)
    if annotations > images:
        raise DataError(f"{folder}: {annotations:,} annotations for {images:,} images; is the copy complete?")


def _affect(path: Path, name: str) -> float:
    return affectnet.affect(_text(path), str(path), name)


def _text(path: Path) -> str:
    values = _strings(path)
    if len(values) != 1:
        raise DataError(f"{path}: {len(values)} values; expected one")
    return values[0]


def _strings(path: Path) -> list[str]:
    """The values of a small .npy file, as text. Raises DataError: not there, no .npy file, or a pickle."""
    try:
        data = path.read_bytes()
        length = int.from_bytes(data[8:10], "little")
        kind, shape = _kind(data[: 10 + length])
        count = int(np.prod(shape, dtype=np.int64))
        values = np.frombuffer(data, kind, count, 10 + length)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such annotation; is the copy complete?") from error
    except (OSError, ValueError, SyntaxError, TokenError) as error:
        raise DataError(f"{path}: not a readable .npy file ({error})") from error
    return [value.decode("ascii", "replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]


@lru_cache(maxsize=1024)
def _kind(head: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """Type and shape from the head of a .npy file of version 1: a handful of heads serve a million files."""
    if head[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("it does not start like a .npy file of version 1")
    shape, _, kind = np.lib.format.read_array_header_1_0(io.BytesIO(head[8:]))
    if kind.hasobject:
        raise ValueError("it holds a pickle, which is never loaded")
    return kind, shape
