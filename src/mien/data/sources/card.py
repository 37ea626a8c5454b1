"""What a dataset source says about its dataset."""

from __future__ import annotations

import msgspec

from mien.errors import DataError, near_miss
from mien.spec import CropSpec

__all__ = ["Card"]


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about a dataset.

    labels: name of its label set in `mien.labels.KNOWN_SETS`, or the names.
    splits: the dataset's own words for its splits -> train, validation, test.
    counts: known rows per split and class, by which a copy is recognised.
    framing: how its pictures were cropped, if they are already cropped faces; else None.
    faces: whether each picture is one face, cropped in a way that no framing tells: the face is looked for, and where none is
        found the whole picture is it.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    licence: str
    home: str
    layout: str
    obtain: str
    cite: str
    splits: dict[str, str]
    counts: dict[str, dict[str, int]] = {}
    framing: CropSpec | None = None
    faces: bool = False

    def split(self, word: str) -> str:
        """mien's word for a split, from the dataset's or mien's own.

        Raises DataError for a word that is neither.
        """
        if word in self.splits.values():
            return word
        if word in self.splits:
            return self.splits[word]
        raise DataError(
            f"{self.name}: unknown split {word!r}; {near_miss(word, [*self.splits, *self.splits.values()])}"
        )
