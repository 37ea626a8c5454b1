"""Why this label: heat over the chip, from a model's own maps or, for any model, by covering parts of the face."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["GRID", "heat_of_maps", "occlusion"]

#: Places a side that `occlusion` covers.
GRID = 8
#: Answers to uint8 chips (n, h, w, 3): probabilities (n, c) and affect (n, 2).
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def heat_of_maps(maps: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(n, c, h, w) maps of a model and (n,) labels by number to (n, h, w) float32: at each place the label's logit minus the
    mean of the others'. Above 0 a place speaks for the label; below, for another.

    >>> maps = np.zeros((1, 3, 1, 2))
    >>> maps[0, 1, 0] = [3, -3]
    >>> heat_of_maps(maps, np.array([1])).tolist()
    [[[3.0, -3.0]]]
    """
    label = maps[np.arange(len(maps)), said]
    others = (maps.sum(axis=1) - label) / (maps.shape[1] - 1)
    return (label - others).astype(np.float32)


def occlusion(run: Run, chip: np.ndarray, said: int) -> np.ndarray:
    """(GRID, GRID) float32: how much the log-odds of label number `said` fall when a square of a quarter of the side, centred
    at this place, is covered with the chip's mean colour (M. Zeiler and R. Fergus 2014, arXiv:1311.2901).

    chip: uint8 (h, w, 3). Asks the model for GRID * GRID + 1 chips.
    """
    height, width = chip.shape[:2]
    colour = np.rint(chip.mean(axis=(0, 1))).astype(np.uint8)
    covered = np.repeat(chip[None], GRID * GRID + 1, axis=0)
    half_y, half_x = height / GRID, width / GRID
    for place in range(GRID * GRID):
        row, column = divmod(place, GRID)
        y, x = (row + 0.5) * height / GRID, (column + 0.5) * width / GRID
        top, bottom = max(0, round(y - half_y)), min(height, round(y + half_y))
        left, right = max(0, round(x - half_x)), min(width, round(x + half_x))
        covered[place, top:bottom, left:right] = colour
    share = np.clip(run(covered)[0][:, said].astype(np.float64), 1e-6, 1 - 1e-6)
    odds = np.log(share / (1 - share))
    return (odds[-1] - odds[:-1]).reshape(GRID, GRID).astype(np.float32)
