"""Other labels of the same pictures, which a second expression head learns beside the first (R. Caruana 1997, "Multitask Learning")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mien.data.sources import read_source, source
from mien.errors import DataError
from mien.evaluation.predictions import Predictions, write_predictions
from mien.evaluation.tables import read_predictions
from mien.files import digest
from mien.labels import LabelSet
from mien.recipe import Recipe

__all__ = ["Auxiliary", "second_labels"]


class Auxiliary:
    """Target distributions by row id: `labels`, and `targets` for the ids of a side.

    source: its name.  licence: of the source.  origin: one line for a spec: source, rule and the hash of the labels.
    """

    def __init__(self, stored: Path, recipe: Recipe) -> None:
        table = read_predictions(stored)
        self.labels: LabelSet = table.labels
        self.source, self._table = recipe.data.auxiliary, table
        self.licence = source(self.source).card.licence
        self.origin = f"{self.source} ({recipe.data.rule}), the same pictures, sha256 {digest(stored)[:16]}"
        self._at = {name: row for row, name in enumerate(table.ids)}

    def targets(self, ids: Sequence[str]) -> Tensor:
        """(n, a) float32, NaN where a row has no such label."""
        out = np.full((len(ids), len(self.labels)), np.nan, np.float32)
        known = [(i, self._at[name]) for i, name in enumerate(ids) if name in self._at]
        if known:
            here, there = (np.array(column) for column in zip(*known, strict=True))
            out[here] = self._table.probabilities[there]
        return torch.from_numpy(out)


def second_labels(
    recipe: Recipe, place: Path, folder: Path, ids: Sequence[str], tell: Callable[[str], None] = lambda _: None
) -> Auxiliary | None:
    """The labels of `data.auxiliary` for rows of these ids, kept in the run folder; None where the recipe names no such source.

    place: the dataset's folder or file.  Raises DataError: no row of this id has such a label.
    """
    name, stored = recipe.data.auxiliary, folder / "auxiliary.parquet"
    if name == "none":
        return None
    if not stored.is_file():
        targets, kept, labels = _read(name, place, recipe, ids)
        tell(f"data.auxiliary: {name} labels {len(kept):,} of {len(ids):,} pictures")
        silent = np.full((len(kept), 2), np.nan, np.float32)
        write_predictions(Predictions(labels, kept, targets, silent), stored)
    return Auxiliary(stored, recipe)


def _read(name: str, place: Path, recipe: Recipe, ids: Sequence[str]) -> tuple[np.ndarray, list[str], LabelSet]:
    """Targets (n, a) of the rows that have some, their ids, the labels."""
    manifest = read_source(name, place, recipe.data.rule)
    wanted = set(ids)
    rows = manifest.take(np.array([i for i, one in enumerate(manifest.ids) if one in wanted], np.int64))
    targets = rows.targets()
    known = ~np.isnan(targets).any(axis=1)
    if not known.any():
        raise DataError(
            f"data.auxiliary: no row of {name} labels one of the {len(ids):,} pictures to train on; its ids are like "
            f"{manifest.ids[:1]}, theirs like {list(ids[:1])}; leave it out: --set data.auxiliary=none"
        )
    return targets[known], [one for one, keep in zip(rows.ids, known, strict=True) if keep], manifest.labels
