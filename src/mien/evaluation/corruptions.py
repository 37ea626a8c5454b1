"""What happens to pictures: a fixed list of corruptions, each at five strengths. The same row is always corrupted alike.

Lengths are shares of the face's side (the chip without its border), so that they mean the same for every chip size; noise is
drawn on a grid of 48 cells a side, JPEG blocks are those of a face of 96 pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

__all__ = ["CORRUPTIONS", "Corruption", "border_for", "corrupted"]

_GRID, _JPEG = 48, 96
Rng = np.random.Generator


class Corruption(NamedTuple):
    """One kind: its five strengths from mild to strong, what the numbers are, and the function
    (chip with border, side, strength, rng) -> chip of the same shape."""

    strengths: tuple[float, float, float, float, float]
    unit: str
    apply: Callable[[np.ndarray, int, float, Rng], np.ndarray]


def border_for(side: int) -> int:
    """The border that a chip of this side needs, in pixels, to be turned and moved without running out of picture."""
    return -(-side // 4)


def corrupted(chip: np.ndarray, border: int, name: str, level: int, row: str, seed: int = 0) -> np.ndarray:
    """A chip (h + 2 border, w + 2 border, 3) uint8 corrupted at level 1 to 5, without its border. row: the row's id."""
    kind = CORRUPTIONS[name]
    rng = np.random.default_rng([seed, level, zlib.crc32(name.encode()), zlib.crc32(row.encode())])
    height, width = chip.shape[0] - 2 * border, chip.shape[1] - 2 * border
    out = kind.apply(chip, min(height, width), kind.strengths[level - 1], rng)
    return out[border : border + height, border : border + width]


def _blur(chip: np.ndarray, side: int, strength: float, _: Rng) -> np.ndarray:
    return cv2.GaussianBlur(chip, (0, 0), strength * side, borderType=cv2.BORDER_REPLICATE)


def _noise(chip: np.ndarray, side: int, strength: float, rng: Rng) -> np.ndarray:
    return _bytes(chip + _field(chip.shape, side, strength, rng))


def _field(shape: tuple[int, ...], side: int, strength: float, rng: Rng) -> np.ndarray:
    """Grey noise of this standard deviation on a grid of 48 cells a face."""
    cells = [max(1, round(length * _GRID / side)) for length in shape[:2]]
    grid = rng.normal(0, strength, cells).astype(np.float32)
    return cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)[..., None]


def _dark(chip: np.ndarray, side: int, strength: float, rng: Rng) -> np.ndarray:
    """Less light, as a share of it, and the sensor's noise (3 grey levels) on what is left."""
    linear = (chip / 255.0) ** 2.2 * strength
    return _bytes(255 * linear ** (1 / 2.2) + _field(chip.shape, side, 3, rng))


def _jpeg(chip: np.ndarray, side: int, strength: float, _: Rng) -> np.ndarray:
    size = (round(chip.shape[1] * _JPEG / side), round(chip.shape[0] * _JPEG / side))
    large = cv2.cvtColor(_resized(chip, size), cv2.COLOR_RGB2BGR)  # the codec weighs red and blue unlike
    data = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, int(strength)])[1]
    decoded = cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
    return _resized(decoded, (chip.shape[1], chip.shape[0]))


def _occlusion(chip: np.ndarray, side: int, strength: float, rng: Rng) -> np.ndarray:
    """A grey square that covers this share of the face, somewhere inside it."""
    length = round(side * strength**0.5)
    edges = [(size - side) // 2 for size in chip.shape[:2]]
    y, x = (edge + int(rng.integers(0, side - length + 1)) for edge in edges)
    out = chip.copy()
    out[y : y + length, x : x + length] = 128
    return out


def _rotation(chip: np.ndarray, _: int, strength: float, rng: Rng) -> np.ndarray:
    height, width = chip.shape[:2]
    angle = strength * rng.choice([-1, 1])
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    return cv2.warpAffine(chip, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _offset(chip: np.ndarray, side: int, strength: float, rng: Rng) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    x, y = strength * side * np.cos(angle), strength * side * np.sin(angle)
    matrix = np.array([[1, 0, x], [0, 1, y]])
    size = (chip.shape[1], chip.shape[0])
    return cv2.warpAffine(chip, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _coarse(chip: np.ndarray, side: int, strength: float, _: Rng) -> np.ndarray:
    small = [max(1, round(length * strength / side)) for length in chip.shape[1::-1]]
    return _resized(_resized(chip, (small[0], small[1])), (chip.shape[1], chip.shape[0]))


def _resized(chip: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    smaller = size[0] < chip.shape[1]
    return cv2.resize(chip, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption((0.01, 0.02, 0.03, 0.045, 0.06), "sigma, shares of the side", _blur),
    "noise": Corruption((8, 16, 24, 36, 48), "sigma, grey levels", _noise),
    "low light": Corruption((0.5, 0.3, 0.15, 0.08, 0.04), "share of the light", _dark),
    "jpeg": Corruption((50, 30, 20, 12, 7), "quality", _jpeg),
    "occlusion": Corruption((0.05, 0.1, 0.2, 0.3, 0.4), "share of the face", _occlusion),
    "rotation": Corruption((5, 10, 15, 22, 30), "degrees, either way", _rotation),
    "crop offset": Corruption((0.04, 0.08, 0.12, 0.16, 0.2), "shares of the side", _offset),
    "low resolution": Corruption((32, 24, 18, 14, 10), "pixels of the side", _coarse),
}
