"""FER2013: 35,887 grey faces of 48x48 pixels with seven labels, as CSV, as Parquet, or as folders of pictures.

I. J. Goodfellow et al., "Challenges in Representation Learning: A report on three machine learning contests",
ICML 2013 workshop, arXiv:1307.0414.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mien.data.manifest import Manifest, Sample, make_manifest
from mien.data.sources import fer2013_forms as forms
from mien.data.sources.card import Card
from mien.data.sources.fer2013_forms import SIDE, Row
from mien.data.sources.folders import onehot
from mien.data.sources.notes import Notes
from mien.errors import DataError, DatasetNotFound
from mien.labels import CODES, KNOWN_SETS
from mien.spec import CropSpec

__all__ = ["CARD", "FRAMING", "SIDE", "Row", "matches", "read", "rows"]

#: How the pictures sit on the face: where YuNet finds the landmarks in enlarged Training pictures, as fractions of
#: the side (docs/framing.md says how it was measured).
FRAMING = CropSpec(
    width=SIDE,
    height=SIDE,
    align="five",
    points=((0.3166, 0.3939), (0.6834, 0.3939), (0.5, 0.5964), (0.344, 0.7443), (0.656, 0.7443)),
    colour="grey",
)

CARD = Card(
    name="fer2013",
    title="FER2013",
    labels=KNOWN_SETS["affectnet7"],
    licence="no licence to redistribute the pictures (collected by web search)",
    home="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    layout=(
        "fer2013.csv or icml_face_data.csv (emotion,pixels,Usage), the competition's train.csv and test.csv, Parquet "
        "files with image, emotion and usage, or the folders train|test/<class>/Training_N.jpg"
    ),
    obtain="get it from the competition's page and give its folder with --data",
    cite="Goodfellow et al. 2013, arXiv:1307.0414",
    splits=forms.USAGES,
    counts={
        "train": dict(zip(CODES["fer2013"], (3995, 436, 4097, 7215, 4830, 3171, 4965), strict=True)),  # type: ignore[arg-type]
        "validation": dict(zip(CODES["fer2013"], (467, 56, 496, 895, 653, 415, 607), strict=True)),  # type: ignore[arg-type]
        # the class totals of all 35,887 rows less the other two splits
        "test": dict(zip(CODES["fer2013"], (491, 55, 528, 879, 594, 416, 626), strict=True)),  # type: ignore[arg-type]
    },
    framing=FRAMING,
)


def matches(root: Path) -> str:
    """The form under a root, from names and headers only; '' if it is not this dataset."""
    return forms.form(root)


def read(root: Path, rule: str = "") -> Manifest:  # noqa: ARG001 - every source takes a rule
    """FER2013 with its own seven labels, from any known form under `root`.

    The competition's test.csv has no labels: its rows are unlabelled and in split test. The folders
    images/train and images/validation are another split, not comparable: the header warns.
    """
    found = forms.form(root)
    if not found:
        raise DatasetNotFound(f"{root}: no FER2013 here; expected {CARD.layout}; {CARD.obtain}")
    notes = Notes()
    every = forms.numbered(root) if found in ("CSV", "Parquet") else forms.unnumbered(root, notes)
    folder = root if found.startswith("class folders") else None
    return make_manifest(map(_sample, every), lambda: notes.header(CARD), folder)


def rows(root: Path) -> Iterator[Row]:
    """All rows under a folder, or of one file, in the order of fer2013.csv, which FER+ follows.

    Raises DatasetNotFound if no known form is there, DataError naming file and row if a row is malformed, or if the
    form does not carry the order.
    """
    found = forms.form(root)
    if found and found not in ("CSV", "Parquet"):
        raise DataError(
            f"{root}: FER+ votes follow the row order of fer2013.csv, and this form ({found}) does not carry it "
            "(the number in a picture's name is not the row); get fer2013.csv and give its folder"
        )
    every = forms.numbered(root) if found else iter(())
    first = next(every, None)
    if first is None:
        raise DatasetNotFound(f"{root}: no FER2013 here; expected {CARD.layout}; {CARD.obtain}")
    return chain([first], every)


def _sample(row: Row) -> Sample:
    target = onehot(CARD.labels, row.label) if row.label else None
    return Sample(f"fer2013:{row.key}", row.image, target, CARD.split(row.usage))
