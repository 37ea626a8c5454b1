"""Test-time averaging: other views of a chip, for any model that answers chips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from mien.errors import ConfigError, near_miss

__all__ = ["KINDS", "AveragedModel", "averaging_kinds", "view_count", "views"]


class Answers(Protocol):
    """Anything that answers chips."""

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, h, w, 3) -> (n, c) probabilities, (n, 2) affect."""


#: Each kind, and what it adds to the chip as it is.
KINDS = {
    "flip": "the mirror image (of every other view as well)",
    "shift": "four shifts by 1/24 of the side: left, right, up, down",
    "multicrop": "the four corners and the centre at 9/10 of the side, enlarged to the whole",
}
_SHIFT, _CROP = 24, 0.9


def averaging_kinds(text: str | None) -> tuple[str, ...]:
    """The kinds in a text with commas. Raises ConfigError with the nearest known kind.

    >>> averaging_kinds("flip, shift")
    ('flip', 'shift')
    """
    kinds = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"--tta {kind}: no such view; {near_miss(kind, KINDS)}")
    return kinds


def view_count(kinds: Sequence[str]) -> int:
    """How often a model is asked for each chip.

    >>> view_count(("flip", "shift")), view_count(())
    (10, 1)
    """
    return (1 + 4 * ("shift" in kinds) + 5 * ("multicrop" in kinds)) * (1 + ("flip" in kinds))


def views(pictures: np.ndarray, border: int, kinds: Sequence[str] = ()) -> Iterator[np.ndarray]:
    """The views of uint8 chips (n, h + 2 border, w + 2 border, 3), each (n, h, w, 3), the chip itself first.

    Shifts look into the border, and repeat the edge where it is too narrow.
    """
    averaging_kinds(",".join(kinds))
    for view in _upright(pictures, border, kinds):
        yield view
        if "flip" in kinds:
            yield view[:, :, ::-1]


def _upright(pictures: np.ndarray, border: int, kinds: Sequence[str]) -> Iterator[np.ndarray]:
    height, width = pictures.shape[1] - 2 * border, pictures.shape[2] - 2 * border
    inner = pictures[:, border : border + height, border : border + width]
    yield inner
    if "shift" in kinds:
        dy, dx = max(1, round(height / _SHIFT)), max(1, round(width / _SHIFT))
        wide = max(0, max(dx, dy) - border)
        padded = np.pad(pictures, ((0, 0), (wide, wide), (wide, wide), (0, 0)), mode="edge")
        for y, x in ((0, -dx), (0, dx), (-dy, 0), (dy, 0)):
            top, left = border + wide + y, border + wide + x
            yield padded[:, top : top + height, left : left + width]
    if "multicrop" in kinds:
        high, long = round(_CROP * height), round(_CROP * width)
        down, right = height - high, width - long
        for y, x in ((down // 2, right // 2), (0, 0), (0, right), (down, 0), (down, right)):
            part = inner[:, y : y + high, x : x + long]
            yield np.stack([cv2.resize(chip, (width, height), interpolation=cv2.INTER_LINEAR) for chip in part])


class AveragedModel:
    """A model that answers chips without a border with the mean of its answers to their views."""

    def __init__(self, model: Answers, kinds: Sequence[str]) -> None:
        self._model, self._kinds = model, kinds

    def run(self, chips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, h, w, 3) -> (n, c) probabilities, (n, 2) affect."""
        said = [self._model.run(view) for view in views(chips, 0, self._kinds)]
        return np.mean([answer[0] for answer in said], axis=0), np.mean([answer[1] for answer in said], axis=0)
