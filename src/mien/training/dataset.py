"""Chips in memory, fetched a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mien.data.manifest import Manifest
from mien.data.prepare import chips
from mien.errors import DataError
from mien.labels import LabelSet
from mien.recipe import Recipe
from mien.sections import DataSection
from mien.training.stop import Order

__all__ = ["Batch", "ChipDataset", "EpochSampler", "check_rows", "loader"]

#: Chips uint8 (n, k, H, W) with border; targets (n, c), affect (n, 2), what t stored teachers told (n, t * c), targets of
#: the second head and what u teachers told of these (n, (1 + u) * a); NaN where unknown.
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class ChipDataset(Dataset[Batch]):
    """The chips, targets and affect of a prepared manifest.

    cache: a file for the decoded chips, which are then mapped into memory instead of held there.
    told: (n, t * c) probabilities by t stored teachers.  auxiliary: (n, (1 + u) * a) of the second head.
    """

    def __init__(
        self,
        manifest: Manifest,
        cache: Path | None = None,
        told: Tensor | None = None,
        auxiliary: Tensor | None = None,
    ) -> None:
        self.chips = torch.from_numpy(chips(manifest, cache)).permute(0, 3, 1, 2)
        self.targets = torch.from_numpy(manifest.targets())
        self.affect = torch.from_numpy(manifest.affect())
        self.told = told if told is not None else torch.zeros(len(self.targets), 0)
        self.auxiliary = auxiliary if auxiliary is not None else torch.zeros(len(self.targets), 0)

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, row: int) -> Batch:
        return self.chips[row], self.targets[row], self.affect[row], self.told[row], self.auxiliary[row]

    def __getitems__(self, rows: list[int]) -> Batch:
        """A whole batch at once."""
        return self.chips[rows], self.targets[rows], self.affect[rows], self.told[rows], self.auxiliary[rows]


class EpochSampler(Sampler[int]):
    """A new order each epoch that depends on seed and epoch alone, so that a resumed run sees the same batches.

    place: (rank, world) of this process: of several, each takes every world-th row of the one order.
    """

    def __init__(
        self,
        targets: Tensor,
        section: DataSection,
        seed: int,
        place: Callable[[], tuple[int, int]] = lambda: (0, 1),
    ) -> None:
        self.section, self.seed, self.epoch, self.place = section, seed, 0, place
        self.count = len(targets)
        known = ~torch.isnan(targets).any(dim=1)
        self.labels = torch.where(known, targets.nan_to_num().argmax(dim=1), targets.shape[1])
        self.length = len(self._rows(torch.Generator().manual_seed(0)))

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.place()[1]

    def __iter__(self) -> Iterator[int]:
        rows = self._rows(torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch))
        rank, world = self.place()
        rows = rows[: len(rows) // world * world]
        return iter(rows[rank::world].tolist())

    def _rows(self, order: torch.Generator) -> Tensor:
        if self.section.sampler == "shuffle":
            return torch.randperm(self.count, generator=order)
        if self.section.sampler == "balanced":
            sizes = torch.bincount(self.labels).clamp(min=1)
            return torch.multinomial(1 / sizes[self.labels].double(), self.count, replacement=True, generator=order)
        shuffled = torch.randperm(self.count, generator=order)
        labels = self.labels[shuffled]
        kept = [torch.nonzero(labels == label).squeeze(1)[: self.section.cap] for label in labels.unique()]
        return shuffled[torch.cat(kept).sort().values]


def loader(dataset: ChipDataset, batch: int, sampler: EpochSampler | None = None) -> DataLoader[Batch]:
    """Batches in row order, or as a sampler says (the last short batch is left out)."""
    drop = sampler is not None and len(sampler) > batch
    order = Order(sampler) if sampler is not None else None
    return DataLoader(dataset, batch, sampler=order, drop_last=drop, collate_fn=_as_is)


def _as_is(batch: Any) -> Any:
    return batch


def check_rows(train: ChipDataset, labels: LabelSet, recipe: Recipe) -> None:
    """Raises DataError where the rows cannot teach what the recipe wants."""
    chosen = recipe.trainer
    processes = chosen.devices * chosen.nodes
    if len(train) < chosen.batch * processes:
        raise DataError(
            f"{recipe.name}: a batch of {chosen.batch * processes} and only {len(train)} rows to train on; lower it (--set "
            f"trainer.batch={max(1, len(train) // processes)}) or give more data"
        )
    if recipe.network.affect == "trained" and bool(train.affect.isnan().any(dim=1).all()):
        raise DataError(
            f"{recipe.name}: network.affect is 'trained' but no row has valence and arousal; use 'circumplex' or other data"
        )
    if recipe.network.expression:
        _check_classes(train, labels, recipe)


def _check_classes(train: ChipDataset, labels: LabelSet, recipe: Recipe) -> None:
    if bool(train.targets.isnan().any(dim=1).all()):
        raise DataError(f"{recipe.name}: no row has a label; set network.expression: false for affect alone")
    mass = train.targets.nan_to_num().sum(dim=0).tolist()
    empty = [name for name, total in zip(labels, mass, strict=True) if total == 0]
    if empty:
        there = ", ".join(name for name in labels if name not in empty)
        raise DataError(
            f"{recipe.name}: no row to train on is labelled {', '.join(empty)}; leave that out (--set 'data.labels=[{there}]') "
            "or give other data"
        )
