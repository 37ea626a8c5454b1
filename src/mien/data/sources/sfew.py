"""SFEW 2.0: stills from films in seven classes, as the folders Train and Val.

A. Dhall, R. Goecke, S. Lucey, T. Gedeon, "Static facial expression analysis in tough conditions", ICCV workshops 2011.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources.card import Card
from mien.data.sources.folders import expression, known_class, onehot, pictures, subfolders
from mien.data.sources.notes import Notes
from mien.errors import DatasetNotFound
from mien.labels import CODES, KNOWN_SETS

__all__ = ["CARD", "matches", "read"]

CARD = Card(
    name="sfew",
    title="SFEW 2.0",
    labels=KNOWN_SETS["affectnet7"],
    licence="research only, on request; no redistribution",
    home="https://users.cecs.anu.edu.au/~few_group/AFEW.html",
    layout="the folders Train and Val, each with a folder per class (Angry Disgust Fear Happy Neutral Sad Surprise)",
    obtain="ask for it on its home page, which needs a signed agreement",
    cite="Dhall et al. 2011, ICCV workshops",
    splits={"Train": "train", "Val": "validation"},
    # Class counts as the literature gives them; checked here only against the known totals.
    counts={
        "train": dict(zip(CODES["fer2013"], (178, 66, 98, 198, 172, 96, 150), strict=True)),  # type: ignore[arg-type]
        "validation": dict(zip(CODES["fer2013"], (77, 23, 47, 73, 73, 57, 86), strict=True)),  # type: ignore[arg-type]
    },
)


def matches(root: Path) -> str:
    """The form under a root, from names only; '' if it is not this dataset."""
    if not root.is_dir() or not set(CARD.splits) <= set(subfolders(root)):
        return ""
    return "class folders" if all(expression(w) in CARD.labels for w in subfolders(root / "Train")) else ""


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Seven labels; the test set has none and is not read."""
    if not root.is_dir() or not set(CARD.splits) & set(subfolders(root)):
        raise DatasetNotFound(f"{root}: no SFEW here; expected {CARD.layout}; {CARD.obtain}")
    notes = Notes()
    return make_manifest(_samples(root, notes), lambda: notes.header(CARD), root)


def _samples(root: Path, notes: Notes) -> Iterator[Sample]:
    for split in CARD.splits:
        if not (root / split).is_dir():
            notes.warn(f"no folder {split}")
            continue
        for word in subfolders(root / split):
            label = known_class(word, str(root / split / word), CARD.labels)
            for name in pictures(root / split / word, notes):
                path = Path(split, word, name)
                yield Sample(f"sfew:{path.as_posix()}", path, onehot(CARD.labels, label), CARD.splits[split])
