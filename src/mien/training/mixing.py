"""Mixing training chips with each other (mixup, cutmix), and unmaking faces."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.sections import AugmentSection

__all__ = ["mixed", "unmade"]

_TILES = (3, 4, 6)
_PART = (0.2, 0.4)


def mixed(x: Tensor, targets: Tensor, affect: Tensor, section: AugmentSection) -> tuple[Tensor, Tensor, Tensor]:
    """Chips (n, 3, h, w), targets (n, c) and affect (n, 2), each mixed with another row's by one share for the batch.

    What is unknown (NaN) in one of the two rows is unknown in their mix. Draws from torch's global generator.
    """
    if not section.mixup and not section.cutmix:
        return x, targets, affect
    cut = bool(section.cutmix) and (not section.mixup or bool(torch.rand(()) < 0.5))
    alpha = torch.tensor(section.cutmix if cut else section.mixup)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(x), device=x.device)
    if cut:
        x, share = _pasted(x, x[other], share)
    else:
        x = share * x + (1 - share) * x[other]
    return x, share * targets + (1 - share) * targets[other], share * affect + (1 - share) * affect[other]


def _pasted(x: Tensor, other: Tensor, share: float) -> tuple[Tensor, float]:
    """x with one box of `other`, of about 1 - share of the area; and the share of x that is left."""
    h, w = x.shape[-2:]
    half_h, half_w = h * math.sqrt(1 - share) / 2, w * math.sqrt(1 - share) / 2
    row, column = float(torch.rand(())) * h, float(torch.rand(())) * w
    y0, y1 = max(0, round(row - half_h)), min(h, round(row + half_h))
    x0, x1 = max(0, round(column - half_w)), min(w, round(column + half_w))
    x = x.clone()
    x[..., y0:y1, x0:x1] = other[..., y0:y1, x0:x1]
    return x, 1 - (y1 - y0) * (x1 - x0) / (h * w)


def unmade(
    x: Tensor, targets: Tensor, affect: Tensor, classes: int | Tensor, section: AugmentSection
) -> tuple[Tensor, Tensor, Tensor]:
    """Chips (n, 3, h, w) of which some are no faces any more: cut into tiles and shuffled, or a small part enlarged.

    classes: that share each column of the targets (n, k): these are then the same for every class.  Their affect (n, 2) is unknown: a network that has seen them is
    less sure of what is no face. Draws from torch's global generator.
    """
    if not section.unmake:
        return x, targets, affect
    rows = torch.nonzero(torch.rand(len(x), device=x.device) < section.unmake).squeeze(1)
    if not len(rows):
        return x, targets, affect
    kinds = torch.rand(len(rows)) < 0.5
    changed = [_shuffled(x[row]) if kind else _part(x[row]) for row, kind in zip(rows, kinds, strict=True)]
    x, targets, affect = x.clone(), targets.clone(), affect.clone()
    x[rows] = torch.stack(changed)
    targets[rows] = torch.where(targets[rows].isnan(), targets[rows], 1 / classes)
    affect[rows] = torch.nan
    return x, targets, affect


def _shuffled(chip: Tensor) -> Tensor:
    """Cut into 3x3, 4x4 or 6x6 tiles that change places; what is left over at the edges stays."""
    count = _TILES[int(torch.randint(len(_TILES), ()))]
    h, w = chip.shape[1] // count, chip.shape[2] // count
    inner = chip[:, : h * count, : w * count].unflatten(2, (count, w)).unflatten(1, (count, h))
    tiles = inner.permute(1, 3, 0, 2, 4).flatten(0, 1)
    tiles = tiles[torch.randperm(len(tiles), device=chip.device)].unflatten(0, (count, count))
    chip = chip.clone()
    chip[:, : h * count, : w * count] = tiles.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)
    return chip


def _part(chip: Tensor) -> Tensor:
    """A part of a fifth to two fifths of the sides, enlarged to the whole."""
    share = _PART[0] + float(torch.rand(())) * (_PART[1] - _PART[0])
    h, w = (max(2, round(side * share)) for side in chip.shape[1:])
    y, x = (int(torch.randint(whole - part + 1, ())) for whole, part in zip(chip.shape[1:], (h, w), strict=True))
    part = chip[None, :, y : y + h, x : x + w]
    return F.interpolate(part, chip.shape[1:], mode="bilinear", align_corners=False)[0]
