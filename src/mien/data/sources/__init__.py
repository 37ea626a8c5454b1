"""Dataset sources by name: each has a CARD, `read(root, rule) -> Manifest` and `matches(root) -> form`."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from mien.data.manifest import Manifest
from mien.data.sources import (
    abaw,
    affectnet,
    affectnet2021,
    affectnet_hq,
    affectnet_kaggle,
    ckplus,
    expw,
    fer2013,
    ferplus,
    plain,
    rafdb,
    sfew,
)
from mien.data.sources.card import Card
from mien.errors import DataError, DatasetNotFound, near_miss
from mien.files import is_there

__all__ = ["SOURCES", "Card", "Source", "read_source", "source"]


class Source(NamedTuple):
    """A dataset source: its card, the function that reads a folder or file, and the one that recognises its form.

    matches: the form's name, or '' for another dataset; it looks at names and headers only.
    """

    card: Card
    read: Callable[[Path, str], Manifest]
    matches: Callable[[Path], str]


#: In the order in which they are tried when a folder is recognised: the particular before the plain.
SOURCES: dict[str, Source] = {
    "ferplus": Source(ferplus.CARD, ferplus.read, ferplus.matches),
    "fer2013": Source(fer2013.CARD, fer2013.read, fer2013.matches),
    "affectnet": Source(affectnet.CARD, affectnet.read, affectnet.matches),
    "affectnet2021": Source(affectnet2021.CARD, affectnet2021.read, affectnet2021.matches),
    "affectnet-kaggle": Source(affectnet_kaggle.CARD, affectnet_kaggle.read, affectnet_kaggle.matches),
    "affectnet-hq": Source(affectnet_hq.CARD, affectnet_hq.read, affectnet_hq.matches),
    "rafdb": Source(rafdb.CARD, rafdb.read, rafdb.matches),
    "ckplus": Source(ckplus.CARD, ckplus.read, ckplus.matches),
    "expw": Source(expw.CARD, expw.read, expw.matches),
    "abaw-expr": Source(abaw.CARD_EXPR, abaw.read_expr, abaw.matches_expr),
    "abaw-va": Source(abaw.CARD_VA, abaw.read_va, abaw.matches_va),
    "sfew": Source(sfew.CARD, sfew.read, sfew.matches),
    "huggingface": Source(plain.CARD_HUGGINGFACE, plain.read_huggingface, plain.matches_huggingface),
    "table": Source(plain.CARD_TABLE, plain.read_table, plain.matches_table),
    "folders": Source(plain.CARD_FOLDERS, plain.read_folders, plain.matches_folders),
}


def source(name: str) -> Source:
    """The source of that name. Raises DataError with the nearest known name."""
    if name not in SOURCES:
        raise DataError(f"{name}: unknown source; {near_miss(name, SOURCES)}")
    return SOURCES[name]


def read_source(name: str, root: str | PathLike[str], rule: str = "majority") -> Manifest:
    """Read a dataset.

    name: of a source.  root: its folder or file.
    rule: how votes become targets ('majority', 'distribution', 'plain'); sources without votes need none, '' will do.
    Raises DatasetNotFound (with the layout it expects and where to get it) and DataError (file, row).
    """
    found = source(name)
    if rule and rule not in ferplus.RULES:
        raise DataError(f"{name}: unknown rule {rule!r}; {near_miss(rule, ferplus.RULES)}")
    path = Path(root)
    if not is_there(path):
        raise DatasetNotFound(
            f"{path}: no such folder or file; {name} expects {found.card.layout}; {found.card.obtain}"
        )
    try:
        manifest = found.read(path, rule)
    except DatasetNotFound as error:
        other = next((one for one, source in SOURCES.items() if one != name and source.matches(path)), None)
        raise DatasetNotFound(
            f"{error}; it looks like {other}: read it as that (--source {other})" if other else str(error)
        ) from error
    if not len(manifest):
        reasons = ", ".join(f"{count:,}: {why}" for why, count in manifest.header.left_out.items())
        raise DataError(
            f"{path}: no row is left of {name} ({reasons or 'it lists none'}); it expects {found.card.layout}"
        )
    return manifest
