"""Recognising a dataset: which one it is, in which form, and whether its class counts are the known ones.

Copies that go round are often not what their name says: classes grown or shrunk, rows dealt to other splits, another
dataset altogether. The rows per split and class give them away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import pyarrow.compute as pc

from mien.data.manifest import Manifest
from mien.data.sources import SOURCES
from mien.data.sources.card import Card
from mien.errors import DatasetNotFound
from mien.files import is_there

__all__ = ["Counts", "Recognised", "compare", "counts_of", "recognise"]

#: Rows per split and class.
Counts = Mapping[str, Mapping[str, int]]

#: A set of class counts is near another where they differ by less than this part of the rows.
_NEAR = 0.15
#: Fewer rows than this are a sample of something: their counts say nothing of where they come from.
_FEW = 200
#: The forms that may hold any dataset: there a folder's name is the only claim.
_PLAIN = ("huggingface", "table", "folders")


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a folder or file was recognised as.

    source: a name in SOURCES.  form: a few words.  counts: rows per split and class (labelled rows only).
    warnings: what reading noticed, and what the counts say.  manifest: the dataset as read.
    """

    source: str
    form: str
    counts: Counts
    warnings: tuple[str, ...]
    manifest: Manifest


def recognise(root: str | PathLike[str]) -> Recognised:
    """Say which dataset and form a folder or file is; compare its class counts with the known ones. No image is decoded.

    Raises DatasetNotFound: nothing there, or no form that mien knows. DataError: file and row of what is malformed.
    """
    path = Path(root)
    if not is_there(path):
        raise DatasetNotFound(f"{path}: no such folder or file")
    for name, found in SOURCES.items():
        if form := found.matches(path):
            manifest = found.read(path, "majority")
            counts = counts_of(manifest)
            warnings = (*manifest.header.warnings, *compare(name, counts, path.resolve().name))
            return Recognised(name, form, counts, warnings, manifest)
    raise DatasetNotFound(
        f"{path}: no dataset in a form that mien knows; a folder per class, or a CSV with a column path, can always be read"
    )


def counts_of(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Labelled rows per split and class, of the classes that occur, by the targets' largest entries."""
    counts: dict[str, Counter[str]] = {}
    names = manifest.header.labels
    for batch in manifest.table.select(["split", "target"]).to_batches(max_chunksize=4096):
        known = batch.filter(pc.is_valid(batch["target"]))
        for split, target in zip(known["split"].to_pylist(), known["target"].to_pylist(), strict=True):
            counts.setdefault(split, Counter())[names[target.index(max(target))]] += 1
    return {split: dict(found) for split, found in counts.items()}


def compare(source: str, counts: Counts, called: str = "") -> list[str]:
    """What class counts say of a copy: nothing where they are the known ones, else a warning for each finding.

    called: the name of the folder or file, which may claim a dataset.
    """
    known = SOURCES[source].card.counts
    if known and _equal(counts, known):
        return _absent(counts, known, source)
    claimed = source if known else _claimed(called) if source in _PLAIN else ""
    nearest = source if known and _near(counts, known) else _nearest(counts)
    if claimed and claimed != nearest:
        return [f"its class counts are not those of {claimed}: {_explanation(counts, claimed, nearest)}"]
    if not nearest:
        return []
    card = SOURCES[nearest].card
    if _equal(counts, card.counts):
        return [f"its class counts are those of {nearest} ({card.title}): read its licence at {card.home}"]
    if _near(counts, card.counts):
        return [f"an altered copy of {nearest}: {_differences(counts, card)}"]
    return [
        f"a foreign split of {nearest}, not comparable with published results: "
        f"{_sizes(counts)}; officially {_sizes(card.counts)}"
    ]


def _explanation(counts: Counts, claimed: str, nearest: str) -> str:
    if nearest:
        return f"they are those of {nearest} ({SOURCES[nearest].card.title}), a mislabelled download"
    return _differences(counts, SOURCES[claimed].card)


def _claimed(called: str) -> str:
    """The dataset that a folder's name claims; '' if none."""
    plain = "".join(letter for letter in called.lower().replace("+", "plus") if letter.isalnum())
    names = [name for name, found in SOURCES.items() if found.card.counts]
    return next((name for name in sorted(names, key=len, reverse=True) if name in plain), "")


def _nearest(counts: Counts) -> str:
    """The dataset with these counts: exactly, nearly, or with its rows in other splits; '' if none."""
    if sum(_totals(counts).values()) < _FEW:
        return ""
    cards = {name: found.card for name, found in SOURCES.items() if found.card.counts}
    for same in (_equal, _near, _renamed, _resplit):
        for name, card in cards.items():
            if same(counts, card.counts):
                return name
    return ""


def _equal(counts: Counts, known: Counts) -> bool:
    """The same rows per class in every split that is there."""
    return bool(counts) and all(split in known and dict(counts[split]) == dict(known[split]) for split in counts)


def _near(counts: Counts, known: Counts) -> bool:
    """Nearly the same rows per class in every split that is there."""
    return bool(counts) and all(split in known and _distance(counts[split], known[split]) < _NEAR for split in counts)


def _renamed(counts: Counts, known: Counts) -> bool:
    """The same totals per split, whatever the classes and the words for the splits."""
    return len(known) > 1 and _sums(counts) == _sums(known)


def _resplit(counts: Counts, known: Counts) -> bool:
    """Nearly the same rows per class over all splits together."""
    return _distance(_totals(counts), _totals(known)) < _NEAR / 3


def _distance(found: Mapping[str, int], known: Mapping[str, int]) -> float:
    off = sum(abs(found.get(name, 0) - known.get(name, 0)) for name in {*found, *known})
    return off / max(1, sum(known.values()))


def _totals(counts: Counts) -> Counter[str]:
    return sum((Counter(found) for found in counts.values()), Counter[str]())


def _sums(counts: Counts) -> list[int]:
    return sorted(sum(found.values()) for found in counts.values())


def _sizes(counts: Counts) -> str:
    return ", ".join(f"{split} {sum(counts[split].values()):,}" for split in counts)


def _absent(counts: Counts, known: Counts, source: str) -> list[str]:
    return [f"{source}: no rows in split {split} ({sum(known[split].values()):,} known)" for split in known if split not in counts]  # fmt: skip


def _differences(counts: Counts, card: Card) -> str:
    """Where counts differ from a card's, class by class."""
    found = []
    for split in counts:
        known = card.counts.get(split, {})
        for name in dict.fromkeys([*known, *counts[split]]):
            here, there = counts[split].get(name, 0), known.get(name, 0)
            if here != there:
                found.append(f"{split} {name} {here:,} instead of {there:,}")
    return "; ".join(found) or "the same"
