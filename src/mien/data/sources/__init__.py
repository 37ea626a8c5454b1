"""Dataset sources by name: each is a module with a CARD and `read(root, rule) -> Manifest`."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from mien.data.manifest import Manifest
from mien.data.sources import fer2013, ferplus
from mien.data.sources.card import Card
from mien.errors import DataError, DatasetNotFound, near_miss

__all__ = ["SOURCES", "Card", "Source", "read_source", "source"]


class Source(NamedTuple):
    """A dataset source: its card, and the function that reads a folder or file into a manifest."""

    card: Card
    read: Callable[[Path, str], Manifest]


SOURCES: dict[str, Source] = {
    "fer2013": Source(fer2013.CARD, fer2013.read),
    "ferplus": Source(ferplus.CARD, ferplus.read),
}


def source(name: str) -> Source:
    """The source of that name. Raises DataError with the nearest known name."""
    if name not in SOURCES:
        raise DataError(f"{name}: unknown source; {near_miss(name, SOURCES)}")
    return SOURCES[name]


def read_source(name: str, root: str | PathLike[str], rule: str = "majority") -> Manifest:
    """Read a dataset.

    name: of a source.  root: its folder or file.
    rule: how votes become targets ('majority', 'distribution', 'plain'); sources without votes ignore it.
    Raises DatasetNotFound (with the layout it expects and where to get it) and DataError (file, row).
    """
    found = source(name)
    path = Path(root)
    if not path.exists():
        raise DatasetNotFound(
            f"{path}: no such folder or file; {name} expects {found.card.layout}; {found.card.obtain}"
        )
    return found.read(path, rule)
