"""Chips in memory, fetched a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mien.data.manifest import Manifest
from mien.data.prepare import chips

__all__ = ["ChipDataset", "EpochSampler", "loader"]


class ChipDataset(Dataset[tuple[Tensor, Tensor]]):
    """The chips (uint8, (n, k, H, W) with border) and targets (n, c) of a prepared manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self.chips = torch.from_numpy(chips(manifest)).permute(0, 3, 1, 2).contiguous()
        self.targets = torch.from_numpy(manifest.targets())

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.chips[row], self.targets[row]

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once."""
        return self.chips[rows], self.targets[rows]


class EpochSampler(Sampler[int]):
    """A new order each epoch that depends on seed and epoch alone, so that a resumed run sees the same batches."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.count, generator=order).tolist())


def loader(dataset: ChipDataset, batch: int, seed: int | None = None) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches in row order, or shuffled anew each epoch if a seed is given (the last short batch is left out)."""
    sampler = None if seed is None else EpochSampler(len(dataset), seed)
    drop = seed is not None and len(dataset) > batch
    return DataLoader(dataset, batch, sampler=sampler, drop_last=drop, collate_fn=_as_is)


def _as_is(batch: Any) -> Any:
    return batch
