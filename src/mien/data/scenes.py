"""Composed scenes for teaching and judging a face detector: heads on grounds, small and large, tilted, dim, blurred.

A scene is luminance alone: (size, size) uint8. Scene number i of a seed is always the same picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from mien.errors import DataError, DatasetNotFound, MissingExtra
from mien.faces import Face

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra.of("Reading scenes needs pyarrow", "data") from error

__all__ = ["Composer", "Head", "read_grounds", "read_heads", "side_of"]

_LAYOUT = "a folder with heads.parquet and backgrounds.parquet (Hugging Face image layout: a struct of bytes and path)"


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """picture: (h, w) uint8 luminance with a head and some ground.  face: where the face is in it, with landmarks."""

    name: str
    picture: np.ndarray
    face: Face


Side = Literal["train", "validation", "test"]


def side_of(name: str) -> Side:
    """The side of a head or ground, by its name without the number, so by person for heads: of twenty, eighteen teach, one
    validates, one judges."""
    digest = hashlib.sha256(Path(name).stem.rstrip("0123456789").rstrip("_").encode()).digest()
    if digest[0] % 10:
        return "train"
    return "test" if digest[1] % 2 else "validation"


def read_heads(
    folder: str | PathLike[str], detector: Callable[[np.ndarray], list[Face]], side: Side, least: float = 0.8
) -> list[Head]:
    """The heads of one side on which the detector finds a face with at least this score (the largest is taken).

    Raises DatasetNotFound, DataError.
    """
    heads = []
    for name, picture in _pictures(Path(folder) / "heads.parquet", side):
        found = [face for face in detector(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)) if face.score >= least]
        if found and found[0].landmarks is not None:
            heads.append(Head(name, picture, found[0]))
    if not heads:
        raise DataError(f"{folder}/heads.parquet: no head with a face that the teacher is sure of")
    return heads


def read_grounds(folder: str | PathLike[str], side: Side) -> list[np.ndarray]:
    """The grounds of one side: (h, w) uint8 luminance. Raises DatasetNotFound, DataError."""
    grounds = [picture for _, picture in _pictures(Path(folder) / "backgrounds.parquet", side)]
    if not grounds:
        raise DataError(f"{folder}/backgrounds.parquet: no picture on this side")
    return grounds


def _pictures(path: Path, side: Side) -> list[tuple[str, np.ndarray]]:
    if not path.is_file():
        raise DatasetNotFound(f"{path}: not found; expected {_LAYOUT}")
    try:
        rows = pq.read_table(path, columns=["image"])["image"].to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path}: not readable as {_LAYOUT} ({error})") from error
    pictures = []
    for number, row in enumerate(rows):
        name = row["path"] or f"row {number}"
        if side_of(name) != side:
            continue
        picture = cv2.imdecode(np.frombuffer(row["bytes"] or b"", np.uint8), cv2.IMREAD_GRAYSCALE)
        if picture is None or min(picture.shape) < 16:
            raise DataError(f"{path}, row {number} ({name}): no readable picture of at least 16x16 pixels")
        pictures.append((name, picture))
    return pictures


class Composer:
    """Makes scenes out of heads and grounds. `scene(seed, index)` draws from these two numbers alone."""

    def __init__(self, heads: Sequence[Head], grounds: Sequence[np.ndarray], size: int = 256) -> None:
        self.heads, self.grounds, self.size = heads, grounds, size

    def scene(self, seed: int, index: int) -> np.ndarray:
        """(size, size) uint8 luminance."""
        return self.compose(seed, index)[0]

    def compose(self, seed: int, index: int) -> tuple[np.ndarray, list[tuple[float, float, float]]]:
        """The scene, and the discs (x, y, radius) on which heads were put, hidden, cut off or blurred as they may be."""
        rng = np.random.default_rng((seed, index))
        canvas, taken = self._ground(rng)
        if rng.random() > 0.12:
            for _ in range(int(rng.integers(1, 12))):
                self._paste(canvas, taken, rng)
        return _spoiled(canvas, rng), taken

    def _ground(self, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[float, float, float]]]:
        """The ground as float32, and the discs (x, y, radius) that are taken by a head already."""
        kind, size = rng.random(), self.size
        if kind < 0.25:
            canvas = np.full((size, size), 128, np.float32)
            head = _pick(self.heads, rng)
            side = size * math.exp(rng.uniform(math.log(0.3), math.log(1.25)))
            middle = size * rng.uniform(0.35, 0.65, 2)
            matrix = _place(head.face, side, _roll(rng), middle, bool(rng.integers(2)), _lean(rng))
            border = cv2.BORDER_REFLECT_101 if rng.random() < 0.7 else cv2.BORDER_REPLICATE
            canvas = _warped(head.picture, matrix, (size, size), border)
            return canvas, [(middle[0], middle[1], 0.65 * side)]
        if kind < 0.30:
            return _plain(size, rng), []
        if kind < 0.55:
            cut = int(size * rng.uniform(0.3, 0.7))
            parts = [self._crop(rng) for _ in range(4)]
            canvas = parts[0]
            canvas[:, cut:] = parts[1][:, cut:]
            if rng.random() < 0.5:
                canvas[cut:, :cut], canvas[cut:, cut:] = parts[2][cut:, :cut], parts[3][cut:, cut:]
            return canvas, []
        return self._crop(rng), []

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        """A square of a ground, shrunk or enlarged, perhaps mirrored."""
        picture, size = _pick(self.grounds, rng), self.size
        scale = max(size / min(picture.shape), rng.uniform(0.5, 1.6))
        shape = (max(size, round(picture.shape[1] * scale)), max(size, round(picture.shape[0] * scale)))
        picture = cv2.resize(picture, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        y, x = (int(rng.integers(0, side - size + 1)) for side in picture.shape)
        picture = picture[y : y + size, x : x + size]
        return (picture[:, ::-1] if rng.random() < 0.5 else picture).astype(np.float32)

    def _paste(self, canvas: np.ndarray, taken: list[tuple[float, float, float]], rng: np.random.Generator) -> None:
        """Put one more head on the canvas, unless its place is taken; by a soft disc or with its own surroundings."""
        head = _pick(self.heads, rng)
        side = math.exp(rng.uniform(math.log(12), math.log(0.85 * self.size)))
        for _ in range(4):
            x, y = rng.uniform(-0.05, 1.05, 2) * self.size
            if all(math.hypot(x - a, y - b) > 0.65 * side + r for a, b, r in taken):
                break
        else:
            return
        taken.append((x, y, 0.65 * side))
        matrix = _place(head.face, side, _roll(rng), np.array([x, y]), bool(rng.integers(2)), _lean(rng))
        reach = 1.3 * side
        low = np.clip(np.floor([x - reach, y - reach]), 0, self.size).astype(int)
        high = np.clip(np.ceil([x + reach, y + reach]), 0, self.size).astype(int)
        if (high - low).min() < 4:
            return
        matrix[:, 2] -= low
        shape = (int(high[0] - low[0]), int(high[1] - low[1]))
        mask = _warped(_mask(head, rng), matrix, shape, cv2.BORDER_CONSTANT) / 255
        face = _lit(_warped(head.picture, matrix, shape, cv2.BORDER_REPLICATE), rng)
        if rng.random() < 0.2:
            _hide(face, (np.array([x, y]) - low), side, rng)
        part = canvas[low[1] : high[1], low[0] : high[0]]
        part += mask * (face - part)


def _pick(items: Sequence, rng: np.random.Generator):  # type: ignore[type-arg,no-untyped-def]
    return items[int(rng.integers(len(items)))]


def _roll(rng: np.random.Generator) -> float:
    """Degrees: mostly small, sometimes up to 50."""
    return float(rng.normal(0, 10) if rng.random() < 0.75 else rng.uniform(-50, 50))


def _lean(rng: np.random.Generator) -> np.ndarray:
    """(2, 2): mostly none; else a stretch and a slant, as heads show that look down, up or aside."""
    if rng.random() < 0.6:
        return np.eye(2)
    stretch = math.exp(rng.normal(0, 0.12))
    return np.array([[stretch, rng.normal(0, 0.1)], [rng.normal(0, 0.06), 1 / stretch]])


def _place(face: Face, side: float, roll: float, middle: np.ndarray, mirror: bool, lean: np.ndarray) -> np.ndarray:
    """(2, 3): from the head's picture to the canvas, its face about `side` pixels high and centred at `middle`."""
    x0, y0, x1, y1 = face.box
    scale, angle = side / (y1 - y0), math.radians(roll)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) @ lean @ np.diag([-1.0 if mirror else 1.0, 1.0])
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    return np.hstack([turn, (middle - turn @ centre)[:, None]])


def _warped(picture: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], border: int) -> np.ndarray:
    """float32; a picture that shrinks is first shrunk by area."""
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 0.7:
        small = tuple(max(2, round(side * scale)) for side in picture.shape[::-1])
        matrix = matrix.copy()
        matrix[:, :2] = matrix[:, :2] @ np.diag([picture.shape[1] / small[0], picture.shape[0] / small[1]])
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    return cv2.warpAffine(picture, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=border).astype(np.float32)


def _mask(head: Head, rng: np.random.Generator) -> np.ndarray:
    """uint8, the size of the head's picture: what of it is pasted."""
    height, width = head.picture.shape
    mask = np.zeros((height, width), np.uint8)
    if rng.random() < 0.25:  # a rectangle with its surroundings
        mask[2:-2, 2:-2] = 255
        soft = 0.02 if rng.random() < 0.5 else 0.08
    else:
        x0, y0, x1, y1 = head.face.box
        centre = ((x0 + x1) / 2, y0 + 0.45 * (y1 - y0))
        axes = (rng.uniform(0.62, 0.9) * (x1 - x0), rng.uniform(0.66, 0.85) * (y1 - y0))
        cv2.ellipse(mask, (centre, (2 * axes[0], 2 * axes[1]), 0), 255, -1)
        mask[:3], mask[-3:], mask[:, :3], mask[:, -3:] = 0, 0, 0, 0
        soft = rng.uniform(0.02, 0.1)
    return cv2.blur(mask, (1 + 2 * int(soft * width), 1 + 2 * int(soft * height)), borderType=cv2.BORDER_CONSTANT)


def _lit(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gain, contrast, and a shadow with a soft edge that falls from any side."""
    mean = float(face.mean())
    face = (face - mean) * rng.uniform(0.6, 1.3) + mean * (rng.uniform(0.25, 1.3) if rng.random() < 0.6 else 1.0)
    if rng.random() < 0.35:
        turn, edge = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4)
        y, x = np.mgrid[-1 : 1 : face.shape[0] * 1j, -1 : 1 : face.shape[1] * 1j].astype(np.float32)
        along = (x * math.cos(turn) + y * math.sin(turn) - edge) * rng.uniform(1.5, 8)
        dark = rng.uniform(0.15, 0.9)
        face = face * (dark + (rng.uniform(0.9, 1.25) - dark) / (1 + np.exp(-along)))
    return np.clip(face, 0, 255).astype(np.float32)


def _hide(face: np.ndarray, middle: np.ndarray, side: float, rng: np.random.Generator) -> None:
    """Cover a part of the face with a grey or rough patch, in place."""
    x, y = middle + rng.uniform(-0.5, 0.5, 2) * side
    w, h = rng.uniform(0.15, 0.5, 2) * side
    patch = face[max(0, int(y - h / 2)) : max(0, int(y + h / 2)), max(0, int(x - w / 2)) : max(0, int(x + w / 2))]
    patch[...] = np.clip(rng.uniform(0, 255) + rng.normal(0, rng.uniform(0, 40), patch.shape), 0, 255)


def _plain(size: int, rng: np.random.Generator) -> np.ndarray:
    """Grey, a slope, a checkerboard or stripes."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    low, high = rng.uniform(0, 255, 2)
    kind, step = rng.integers(4), rng.uniform(3, 40)
    turn = rng.uniform(0, math.pi)
    along = x * math.cos(turn) + y * math.sin(turn)
    share = [np.zeros_like(x), along / (1.5 * size), ((x // step + y // step) % 2), ((along // step) % 2)][int(kind)]
    return np.clip(low + (high - low) * share, 0, 255).astype(np.float32)


def _spoiled(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What cameras and files do: blur, motion, low light, noise, JPEG."""
    kind = rng.random()
    if kind < 0.15:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 1.8))
    elif kind < 0.23:
        length = int(rng.integers(3, 9))
        kernel = cv2.getRotationMatrix2D((length / 2 - 0.5, length / 2 - 0.5), rng.uniform(0, 180), 1)
        line = np.zeros((length, length), np.float32)
        line[length // 2] = 1
        line = cv2.warpAffine(line, kernel, (length, length))
        canvas = cv2.filter2D(canvas, -1, line / max(float(line.sum()), 1e-6))
    if rng.random() < 0.2:
        canvas = 255 * (canvas / 255) ** rng.uniform(0.6, 1.8) * rng.uniform(0.15, 1.0)
    if rng.random() < 0.35:
        canvas = canvas + rng.standard_normal(canvas.shape, np.float32) * rng.uniform(1, 14)
    scene = np.clip(canvas, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        data = cv2.imencode(".jpg", scene, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))])[1]
        scene = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return scene
