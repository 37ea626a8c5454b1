"""A user's own augmentation, whatever library it comes from, as a function of batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mien.errors import ConfigError

__all__ = ["Transform", "as_batches"]

#: float32 chips (n, 3, h, w) 0..255 -> the same form.
Transform = Callable[[Tensor], Tensor]


def as_batches(transform: Any) -> Transform | None:
    """A function of float32 batches from what `fit(transform=...)` takes.

    torchvision's transforms get one uint8 chip (3, h, w) at a time, albumentations' one uint8 image (h, w, 3): so each chip
    draws its own changes, from torch's seeded generator. Anything else that can be called gets the whole float32 batch.
    Leave out scaling and normalising: the network does that itself.
    Raises ConfigError if it cannot be called; on use, if it gives another size, type or range.

    >>> as_batches(lambda chips: 255 - chips)(torch.zeros(1, 3, 2, 2)).max()
    tensor(255.)
    """
    if transform is None:
        return None
    if not callable(transform):
        raise ConfigError(f"transform: {type(transform).__name__} cannot be called")
    homes = {kind.__module__.partition(".")[0] for kind in type(transform).__mro__}
    if "albumentations" in homes:
        return lambda chips: _by_image(transform, chips)
    if "torchvision" in homes:
        return lambda chips: _by_chip(transform, chips)
    return lambda chips: _same_size(transform(chips), chips)


def _by_chip(transform: Any, chips: Tensor) -> Tensor:
    made = [_checked(transform(chip), chip.shape, torch.uint8) for chip in chips.clamp(0, 255).byte()]
    return torch.stack(made).float()


def _by_image(transform: Any, chips: Tensor) -> Tensor:
    if hasattr(transform, "set_random_seed"):  # or a resumed run would draw other changes
        transform.set_random_seed(int(torch.randint(2**31, ()).item()))
    pictures = chips.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    made = [_checked(transform(image=picture)["image"], picture.shape, np.uint8) for picture in pictures]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).float().to(chips.device)


def _checked(made: Any, shape: Any, dtype: Any) -> Any:
    if getattr(made, "dtype", type(made)) != dtype or tuple(made.shape) != tuple(shape):
        found = f"{tuple(made.shape)} {made.dtype}" if hasattr(made, "dtype") else type(made).__name__
        raise ConfigError(
            f"transform: gives {found} for a chip of {tuple(shape)} uint8; leave out what converts, scales, normalises or "
            "resizes: the network does that itself"
        )
    return made


def _same_size(made: Any, chips: Tensor) -> Tensor:
    if not isinstance(made, Tensor) or made.shape != chips.shape:
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ConfigError(f"transform: gives {found} for a batch of {tuple(chips.shape)}; it must keep the form")
    return made
