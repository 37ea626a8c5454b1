"""ExpW, Expression in-the-Wild: web pictures with a box and one of seven labels for each face, without a split.

Z. Zhang, P. Luo, C. C. Loy, X. Tang, "From Facial Expression Recognition to Interpersonal Relation Prediction",
IJCV 2018, arXiv:1609.06426. The boxes stand as top, left, right, bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources.card import Card
from mien.data.sources.folders import Listed, onehot
from mien.data.sources.notes import Notes
from mien.data.sources.text import box, code, lines, number
from mien.errors import DataError, DatasetNotFound
from mien.labels import CODES, KNOWN_SETS

__all__ = ["CARD", "matches", "read"]

CARD = Card(
    name="expw",
    title="ExpW",
    labels=KNOWN_SETS["affectnet7"],
    licence="non-commercial research; no redistribution",
    home="http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html",
    layout="label.lst (name, face id, top, left, right, bottom, confidence, label) and the pictures in image/origin/",
    obtain="get label.lst and the pictures from its home page",
    cite="Zhang et al. 2018, arXiv:1609.06426",
    splits={},
    # Class counts as the literature gives them; checked here only against the known totals.
    counts={"train": dict(zip(CODES["expw"], (3671, 3995, 1088, 30537, 10559, 7060, 34883), strict=True))},  # type: ignore[arg-type]
)

_LISTS = ("", "label", "data/label")
_IMAGES = ("image/origin", "data/image/origin", "origin", "image")


def matches(root: Path) -> str:
    """The form under a root, from names only; '' if it is not this dataset."""
    return "label.lst and pictures" if _list(root) else ""


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """Seven labels and a box for each face; one picture may hold several. Every row is `train`."""
    path = _list(root)
    if path is None:
        raise DatasetNotFound(f"{root}: no ExpW here; expected {CARD.layout}; {CARD.obtain}")
    folder = root if root.is_dir() else path.parent.parent if path.parent.name == "label" else path.parent
    prefix = next((place for place in _IMAGES if (folder / place).is_dir()), "")
    notes = Notes()
    return make_manifest(_samples(path, Listed(folder, prefix)), lambda: notes.header(CARD), folder)


def _list(root: Path) -> Path | None:
    if root.is_file():
        return root if root.name == "label.lst" else None
    return next((root / place / "label.lst" for place in _LISTS if (root / place / "label.lst").is_file()), None)


def _samples(path: Path, listed: Listed) -> Iterator[Sample]:
    where = ""
    for where, line in lines(path):
        if not line:
            continue
        words = line.rsplit(maxsplit=7)
        if len(words) != 8:
            raise DataError(f"{where}: {len(words)} fields; expected name, face id, top, left, right, bottom, confidence, label")  # fmt: skip
        face, top, left, right, bottom, confidence, label = words[1:]
        number(confidence, where, "confidence")
        name = CODES["expw"][code(label, where, "label", 0, 6)]
        assert name is not None
        edges = box((left, top, right, bottom), where)
        image = listed(words[0], where, face)
        yield Sample(f"expw:{words[0]}#{face}", image, onehot(CARD.labels, name), box=edges)
    if not where:
        raise DataError(f"{path}: no rows; is the file cut off?")
