"""Losses against target distributions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["class_weights", "soft_cross_entropy"]


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of -sum_c weights_c q_c log softmax(logits)_c, with q = (1 - s) target + s / c.

    logits, targets: (n, c).  weights: (c,).  smoothing s: in [0, 1).
    """
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    return -(weights * targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def class_weights(targets: Tensor, power: float) -> Tensor:
    """(c,) weights, inverse class frequency to a power, scaled so that their mean over the rows is 1.

    A class without rows gets weight 0.
    """
    share = targets.mean(dim=0)
    raw = torch.where(share > 0, share.clamp(min=1e-9) ** -power, 0.0)
    return raw / (raw * share).sum()
