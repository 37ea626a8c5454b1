"""Mixing training chips with each other: mixup and cutmix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mien.sections import AugmentSection

__all__ = ["mixed"]


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
